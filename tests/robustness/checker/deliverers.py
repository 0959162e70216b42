"""An owner of webhooks, and gateways that share them. Nothing is posted: the calls alone count."""

import random
from dataclasses import replace
from typing import Any

from jobledger.internal.v1alpha1 import webhook_delivery_service_pb2 as internal
from jobledger.v1 import webhook_service_pb2 as pb
from tests.robustness.checker.asking import Answer, Replicas
from tests.robustness.checker.board import USERS, Board, pause
from tests.robustness.checker.history import (
    History,
    Outcome,
    WebhookChange,
    WebhookClaim,
    WebhookSave,
)

MOST = 5
"""Webhooks at once."""

PAUSE_SECONDS = (0.05, 0.4)

PATIENCE = 60.0


async def own_webhooks(
    replicas: Replicas, rng: random.Random, board: Board, history: History
) -> None:
    """Create, change and delete webhooks until there is no more load."""
    ids: list[str] = []
    late: set[str] = set()
    """Webhooks of which an earlier try may be made yet, after later changes."""
    asked = 0

    async def change(rpc: str, request: Any, webhook_id: str = "") -> Answer:
        """Ask for a change, with a request id twice: both answers must be the same."""
        answer = await replicas.ask(rpc, request, patience=PATIENCE)
        if webhook_id and answer.tries > 1:
            late.add(webhook_id)
        if answer.outcome is Outcome.ACKNOWLEDGED:
            made = WebhookChange(rpc, webhook_id, answer.sent, answer.answered)
            if rpc in {"CreateWebhook", "RotateSecret"} and rng.random() < 0.5:
                again = await replicas.ask(rpc, request, patience=PATIENCE)
                if webhook_id and again.tries > 1:
                    late.add(webhook_id)
                if again.outcome is Outcome.ACKNOWLEDGED and webhook_id not in late:
                    first, second = answer.response, again.response
                    facts = (first.webhook.id, first.secret), (second.webhook.id, second.secret)
                    made = replace(made, wanted=str(facts[0]), found=str(facts[1]))
            history.webhook_changes.append(made)
        return answer

    while not board.load.is_set():
        await pause(board.load, rng.uniform(*PAUSE_SECONDS))
        asked += 1
        request_id, url = f"webhook-{asked}", f"https://{asked}.example/"
        if len(ids) < MOST:
            new = pb.CreateWebhookRequest(user_id=rng.choice(USERS), url=url, request_id=request_id)
            answer = await change("CreateWebhook", new)
            if answer.response is not None:
                ids.append(answer.response.webhook.id)
            continue
        webhook_id = rng.choice(ids)
        match rng.choice(("update", "update", "rotate", "rotate", "delete")):
            case "update":
                update = pb.UpdateWebhookRequest(webhook_id=webhook_id, url=url)
                update.update_mask.paths.append("url")
                updated = await change("UpdateWebhook", update, webhook_id)
                get = pb.GetWebhookRequest(webhook_id=webhook_id)
                read = await replicas.ask("GetWebhook", get, patience=PATIENCE)
                known = updated.response is not None and webhook_id not in late
                if known and read.response is not None:
                    times, found = (read.sent, read.answered), read.response.webhook.url
                    history.webhook_changes.append(
                        WebhookChange("GetWebhook", webhook_id, *times, url, found)
                    )
            case "rotate":
                rotation = pb.RotateSecretRequest(webhook_id=webhook_id, request_id=request_id)
                await change("RotateSecret", rotation, webhook_id)
            case "delete":
                ids.remove(webhook_id)
                deletion = pb.DeleteWebhookRequest(webhook_id=webhook_id)
                await change("DeleteWebhook", deletion, webhook_id)


class Deliverer:
    """Claims webhooks, and stores how far each has come: sometimes after its claim has ended."""

    def __init__(
        self, name: str, replicas: Replicas, rng: random.Random, board: Board, history: History
    ) -> None:
        self._name, self._replicas, self._rng = name, replicas, rng
        self._board, self._history = board, history
        self._held: dict[str, int] = {}
        """The generation of each webhook that it believes to hold."""
        self._saves = 0

    async def run(self) -> None:
        """Claim and save until there is no more load; then leave."""
        while not self._board.load.is_set():
            await self._claim()
            for webhook_id in self._rng.sample(list(self._held), min(2, len(self._held))):
                await self._save(webhook_id, release=self._rng.random() < 0.2)
            await pause(self._board.load, self._rng.uniform(*PAUSE_SECONDS))
        stop = internal.ClaimWebhooksRequest(deliverer_id=self._name, stops=True)
        await self._replicas.ask("ClaimWebhooks", stop, patience=PATIENCE)

    async def _claim(self) -> None:
        request = internal.ClaimWebhooksRequest(deliverer_id=self._name, held_ids=self._held)
        answer = await self._replicas.ask("ClaimWebhooks", request, patience=PATIENCE)
        if answer.response is None:
            return
        for each in answer.response.webhooks:
            claim = WebhookClaim(
                self._name, each.webhook.id, each.generation, answer.sent, answer.answered
            )
            self._history.webhook_claims.append(claim)
            self._held[each.webhook.id] = each.generation
        for webhook_id in self._held.keys() - set(answer.response.held_ids):
            if self._rng.random() < 0.5:  # else it has not noticed yet
                del self._held[webhook_id]
        for webhook_id in answer.response.surplus_ids:
            await self._save(webhook_id, release=True)

    async def _save(self, webhook_id: str, *, release: bool) -> None:
        self._saves += 1
        generation = self._held[webhook_id]
        request = internal.SaveWebhookRequest(
            webhook_id=webhook_id,
            generation=generation,
            cursor=f"{self._name} {self._saves}",
            release=release,
        )
        answer = await self._replicas.ask("SaveWebhook", request, patience=PATIENCE)
        if answer.outcome is Outcome.ACKNOWLEDGED:
            self._history.webhook_saves.append(
                WebhookSave(webhook_id, generation, answer.sent, answer.answered, release)
            )
        if release and self._rng.random() < 0.5:
            self._held.pop(webhook_id, None)
