"""What watchers see: order, fan-out, slots, and the reading of gaps."""
