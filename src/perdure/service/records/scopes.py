"""Which scope a commit asks for: its kind says it, and a few ask for less."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from perdure.engine.calls.claim import HANDLED, WOKEN
from perdure.model.commit import Commit, Kind
from perdure.model.control import CONFIGURED, Control
from perdure.model.ids import SessionKey
from perdure.model.lifecycle import Policy, look_of, policy_of
from perdure.service.hooks import Credential, Scope
from perdure.service.records.verify import Checked
from perdure.service.refusals import Forbidden

_SCOPES = {Kind.data: Scope.append, Kind.pin: Scope.append, Kind.lease: Scope.lease}

Begins = Callable[[SessionKey], Awaitable[Policy | None]]
"""The policy that a session begins with that is started now."""


def check_commit(credential: Credential, commit: Commit) -> None:
    """Raise `Forbidden` for a commit of another actor than the credential is bound to, and for one whose kind alone says its scope."""
    if credential.actor is not None and commit.actor != credential.actor:
        raise Forbidden(f"These credentials write as {credential.actor!r} only.", advice="")
    scope = _SCOPES.get(commit.kind)
    if scope is not None and scope not in credential.scopes:
        raise _out_of_scope(commit.kind, scope)


async def check_scopes(credential: Credential, checked: Checked, before: Control, after: Control, begins: Begins) -> None:
    """Raise `Forbidden` for a commit whose kind asks for a scope that the credential does not have.

    Less is asked of commits that come with others by themselves: what a prefix policy begins a session with, the alarm that a worker
    who claims a session uses up, and the end of an archived session's sleep when it is written to.
    """
    leasing = any(commit.kind is Kind.lease for commit in checked.commits)
    for commit in checked.commits:
        scope, event = _SCOPES.get(commit.kind, Scope.admin), commit.events[0]
        if commit.kind is Kind.anchor:
            scope = Scope.append
        elif commit.kind is Kind.configure and scope not in credential.scopes:
            if leasing and event.type in (WOKEN, HANDLED) and _only_alarm(before, after):
                scope = Scope.lease
            elif checked.attempt.expected is None and event.type != CONFIGURED and checked.origin is not None:
                scope = Scope.append if await _begins_so(checked.session, after, begins) else scope
            elif checked.attempt.expected is None and commit.version == 1 and await _begins_so(checked.session, after, begins):
                scope = Scope.lease if leasing else Scope.append
        if scope not in credential.scopes:
            raise _out_of_scope(commit.kind, scope)


def _out_of_scope(kind: Kind, scope: Scope) -> Forbidden:
    """The error for a commit whose kind asks for a scope that the credentials do not have."""
    return Forbidden(f"A {kind.name} commit needs the scope {scope.value!r}, which these credentials do not have.", advice="")


async def _begins_so(session: SessionKey, control: Control, begins: Begins) -> bool:
    """Whether a session that is started now begins with these sections: the policy of its prefix, or none."""
    return _without_alarm(policy_of(control)) == _without_alarm(await begins(session))


def _without_alarm(policy: Policy | None) -> Policy | None:
    rest = None if policy is None else msgspec.structs.replace(policy, wake_at=None)
    return None if rest is None or rest.says_nothing else rest


def _only_alarm(before: Control, after: Control) -> bool:
    """Whether two control cells differ in the alarm alone, as far as policies go."""
    return _without_alarm(policy_of(before)) == _without_alarm(policy_of(after)) and look_of(before) == look_of(after)
