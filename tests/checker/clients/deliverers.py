"""An owner of webhooks, and gateways that share them. Nothing is posted: the calls alone count."""

import random
from dataclasses import replace
from typing import Any

from jobledger.internal.v1alpha1 import webhook_delivery_service_pb2 as internal
from jobledger.v1 import webhook_service_pb2 as pb
from tests.checker.clients.asking import Answer, Replicas
from tests.checker.clients.board import USERS, Board, pause
from tests.checker.history import (
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
    owner = _Owner(replicas, rng, history)
    while not board.load.is_set():
        await pause(board.load, rng.uniform(*PAUSE_SECONDS))
        await owner.change_something()


class _Owner:
    def __init__(self, replicas: Replicas, rng: random.Random, history: History) -> None:
        self._replicas, self._rng, self._history = replicas, rng, history
        self._ids: list[str] = []
        self._late: set[str] = set()
        """Webhooks of which an earlier try may be made yet, after later changes."""
        self._rotations: dict[str, pb.RotateSecretRequest] = {}
        """The last one of each webhook that was acknowledged."""
        self._asked = 0

    async def change_something(self) -> None:
        """Create a webhook while there are few, else change or delete one."""
        self._asked += 1
        if len(self._ids) < MOST:
            await self._create()
            return
        webhook_id = self._rng.choice(self._ids)
        match self._rng.choice(("update", "update", "rotate", "rotate", "enable", "delete")):
            case "update":
                await self._update(webhook_id)
            case "rotate":
                await self._rotate(webhook_id)
            case "enable":  # it is, so nothing changes: its claim goes on
                enabling = pb.EnableWebhookRequest(webhook_id=webhook_id)
                await self._ask("EnableWebhook", enabling, webhook_id)
            case "delete":
                self._ids.remove(webhook_id)
                deletion = pb.DeleteWebhookRequest(webhook_id=webhook_id)
                await self._change("DeleteWebhook", deletion, webhook_id)

    @property
    def _url(self) -> str:
        return f"https://{self._asked}.example/"

    @property
    def _request_id(self) -> str:
        return f"webhook-{self._asked}"

    async def _create(self) -> None:
        new = pb.CreateWebhookRequest(
            user_id=self._rng.choice(USERS), url=self._url, request_id=self._request_id
        )
        answer = await self._change("CreateWebhook", new)
        if answer.response is not None:
            self._ids.append(answer.response.webhook.id)

    async def _update(self, webhook_id: str) -> None:
        update = pb.UpdateWebhookRequest(webhook_id=webhook_id, url=self._url)
        update.update_mask.paths.append("url")
        updated = await self._change("UpdateWebhook", update, webhook_id)
        get = pb.GetWebhookRequest(webhook_id=webhook_id)
        read = await self._replicas.ask("GetWebhook", get, patience=PATIENCE)
        known = updated.response is not None and webhook_id not in self._late
        if known and read.response is not None:
            times, found = (read.sent, read.answered), read.response.webhook.url
            self._history.webhook_changes.append(
                WebhookChange("GetWebhook", webhook_id, *times, self._url, found)
            )

    async def _rotate(self, webhook_id: str) -> None:
        """Rotate the secret; then, sometimes, repeat the rotation before, which comes too late."""
        rotation = pb.RotateSecretRequest(webhook_id=webhook_id, request_id=self._request_id)
        rotated = await self._change("RotateSecret", rotation, webhook_id)
        if rotated.outcome is not Outcome.ACKNOWLEDGED:
            return
        earlier = self._rotations.get(webhook_id)
        self._rotations[webhook_id] = rotation
        if earlier is None or self._rng.random() < 0.5:
            return
        again = await self._ask("RotateSecret", earlier, webhook_id)
        if again.outcome is Outcome.ACKNOWLEDGED:
            times = again.sent, again.answered
            self._history.webhook_changes.append(
                WebhookChange("RotateSecret", webhook_id, *times, "a refusal", "another secret")
            )

    async def _change(self, rpc: str, request: Any, webhook_id: str = "") -> Answer:
        """Ask for a change, with a request id twice: both answers must be the same."""
        answer = await self._ask(rpc, request, webhook_id)
        if answer.outcome is Outcome.ACKNOWLEDGED:
            made = WebhookChange(rpc, webhook_id, answer.sent, answer.answered)
            if rpc in {"CreateWebhook", "RotateSecret"} and self._rng.random() < 0.5:
                again = await self._ask(rpc, request, webhook_id)
                if again.outcome is Outcome.ACKNOWLEDGED and webhook_id not in self._late:
                    first, second = answer.response, again.response
                    facts = (first.webhook.id, first.secret), (second.webhook.id, second.secret)
                    made = replace(made, wanted=str(facts[0]), found=str(facts[1]))
            self._history.webhook_changes.append(made)
        return answer

    async def _ask(self, rpc: str, request: Any, webhook_id: str) -> Answer:
        answer = await self._replicas.ask(rpc, request, patience=PATIENCE)
        if webhook_id and answer.tries > 1:
            self._late.add(webhook_id)
        return answer


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
