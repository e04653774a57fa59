"""What a runner is, so that what it made can be told from what another makes."""

from __future__ import annotations

import hashlib

from ..cache import NETWORK, Facts, program_facts
from ..engines.runner import Runner

__all__ = ["runner_facts"]


def runner_facts(runner: Runner) -> Facts | None:
    """All that the pixels of a runner depend on; None of a runner that does not say what it runs."""
    described = runner.describe()
    network = described.get("sha256")
    if network is None and (model := getattr(runner, "model", None)) is not None:
        digest = hashlib.sha256()
        for name, tensor in model.state_dict().items():
            digest.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
        network = digest.hexdigest()
    if network is None:
        return None
    return {NETWORK: network, "runner": described, "spec": runner.spec.to_json(), **program_facts()}
