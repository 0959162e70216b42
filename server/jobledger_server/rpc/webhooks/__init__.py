"""WebhookService: subscriptions, and what their deliverers need."""
