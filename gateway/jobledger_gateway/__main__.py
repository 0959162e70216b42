"""The command `jobledger-gateway`."""


def main() -> None:
    """Run the gateway."""
    raise SystemExit("jobledger-gateway: not built yet")


if __name__ == "__main__":
    main()
