"""Trains a preset of this package on a folder of images; on two CPU cores in an hour, or on a GPU.

Usage (from the root of the repository, with the package installed)::

    python tools/train.py agileir_tiny_x2 --data DATA --out runs/tiny_x2 --steps 10000
    python tools/train.py agileir_tiny_x2 --data DATA --out runs/tiny_x2 --steps 10000 --resume

The loss is Charbonnier's, the optimizer Adam with warm-up and a cosine to zero; what is kept are
exponential moving averages of the weights. Ctrl-C writes a checkpoint and ends; the same command
with ``--resume`` goes on from there and ends with the weights that an undisturbed run would have
had, bit for bit on a CPU with the same number of threads.

The folder of a run holds ``last.pt`` (everything needed to go on), ``log.csv`` and
``<preset>.safetensors``.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import math
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors.torch import save as to_safetensors
from torch import Tensor

from agileir_export.errors import AgileIRError, CheckpointError, InputError, OutputError
from agileir_export.files import write_atomic
from agileir_export.models import Restorer, build_preset, find_preset, use_operators
from agileir_export.parity.metrics import psnr

sys.path.insert(0, str(Path(__file__).parent))
from training_conduct import Interrupt, Log, typed_write_errors
from training_data import TrainingImages
from warm_start import start_as_interpolation, start_from_weights

CHARBONNIER_EPSILON = 1e-3
INTERRUPTED = 130  # what a shell reports after Ctrl-C


@dataclass(frozen=True)
class Settings:
    """Everything that decides what weights come out; a checkpoint carries it.

    Attributes:
        preset: Name of the model.
        data: Folder of training images.
        steps: Optimizer steps in all.
        batch: Crops a step.
        patch: Side of a crop before up-scaling, in pixels.
        lr: Highest learning rate.
        warmup: Steps over which it rises linearly.
        ema: Decay of the moving averages.
        clip: Largest norm of the gradient.
        sigma: Standard deviation of the noise, in 8-bit steps (denoising).
        seed: Seed of weights, crops and noise.
        held_out: Images kept for validation.
        attention: ``"plain"`` keeps the attention matrices, ``"operator"`` recomputes them.
        amp: bfloat16 autocast.
        start: File of weights to start from, or empty.
        skip_small: Leave out images that are smaller than a crop.
        eight_bit: Share of batches whose noisy input is clamped and rounded to 8 bits, 0..1.
    """

    preset: str
    data: str
    steps: int
    batch: int
    patch: int
    lr: float
    warmup: int
    ema: float
    clip: float
    sigma: float
    seed: int
    held_out: int
    attention: str
    amp: bool
    start: str
    skip_small: bool = False
    eight_bit: float = 0.0

    def learning_rate(self, step: int) -> float:
        """Linear warm-up, then a cosine that reaches zero after the last step."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        done = (step - self.warmup) / max(self.steps - self.warmup, 1)
        return self.lr * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


def charbonnier(output: Tensor, target: Tensor) -> Tensor:
    """Mean of ``sqrt(d^2 + eps^2)`` (Lai et al. 2017, LapSRN, equation 2; eps = 1e-3 as there)."""
    return torch.sqrt((output - target) ** 2 + CHARBONNIER_EPSILON**2).mean()


class Averages:
    """Exponential moving averages of a model's parameters; buffers are copied.

    The decay rises as ``min(decay, (1 + t) / (10 + t))``, so that the random start is forgotten
    quickly.
    """

    def __init__(self, model: Restorer, decay: float) -> None:
        self.decay = decay
        self.state = {name: value.detach().clone() for name, value in model.state_dict().items()}
        self._parameters = {name for name, _ in model.named_parameters()}

    @torch.no_grad()
    def update(self, model: Restorer, step: int) -> None:
        """Takes in the weights after optimizer step `step`, counted from 0."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, value in model.state_dict().items():
            if name in self._parameters:
                self.state[name].lerp_(value, 1 - decay)
            else:
                self.state[name].copy_(value)


class Run:
    """A training run: model, optimizer, averages, random numbers, and its folder.

    Args:
        settings: What to train.
        folder: Where checkpoints go; it is created.
        device: ``"cpu"`` or ``"cuda"``.

    Raises:
        AgileIRError: Of the kinds that `TrainingImages` and `start_from_weights` raise; or the
            preset is unknown.
    """

    def __init__(self, settings: Settings, folder: Path, device: str = "cpu") -> None:
        self.settings, self.folder, self.device = settings, folder, torch.device(device)
        torch.manual_seed(settings.seed)
        self.generator = np.random.default_rng(settings.seed)
        self.model = build_preset(settings.preset)
        spec = self.model.spec
        if settings.patch % spec.pad_multiple:
            raise InputError(
                f"Crops of {settings.patch}x{settings.patch} pixels do not fit {settings.preset}.",
                why="Padding inside every crop would waste work.",
                fix=f"Choose a --patch that is a multiple of {spec.pad_multiple}.",
            )
        self.images = TrainingImages(
            Path(settings.data),
            spec.scale,
            spec.channels,
            settings.patch,
            settings.sigma,
            settings.held_out,
            settings.skip_small,
            settings.eight_bit,
        )
        if settings.start:
            start_from_weights(self.model, Path(settings.start))
        else:
            start_as_interpolation(self.model)
        use_operators(self.model, settings.attention == "operator")
        self.model.to(self.device).train()
        self.optimizer = torch.optim.Adam(self.model.parameters(), settings.lr, betas=(0.9, 0.99))
        self.averages = Averages(self.model, settings.ema)
        self.step = 0

    @property
    def checkpoint(self) -> Path:
        """File that holds everything needed to go on."""
        return self.folder / "last.pt"

    def advance(self) -> tuple[float, float]:
        """One optimizer step; returns loss and norm of the gradient."""
        degraded, clean = self.images.batch(self.generator, self.settings.batch)
        degraded, clean = degraded.to(self.device), clean.to(self.device)
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.learning_rate(self.step)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.amp):
            output = self.model(degraded)
        loss = charbonnier(output.float(), clean)
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip)
        self.optimizer.step()
        self.averages.update(self.model, self.step)
        self.step += 1
        return loss.item(), norm.item()

    @torch.no_grad()
    def validate(self) -> float:
        """Mean RGB PSNR of the averaged weights on the held-out images, in dB."""
        averaged = build_preset(self.settings.preset)
        averaged.load_state_dict(self.averages.state)
        use_operators(averaged, True)  # bounded memory on whole images
        averaged.to(self.device).eval()
        scores = []
        for degraded, clean in self.images.validation_pairs():
            restored = averaged(degraded.to(self.device)).float().cpu().numpy()
            scores.append(psnr(restored, clean.numpy()))
        return sum(scores) / max(len(scores), 1)

    def save(self) -> None:
        """Replaces the checkpoint; the old one stays whole until the new one is.

        Raises:
            OutputError: It cannot be written, on a full disk for example; the old one is untouched.
        """
        content = {
            "settings": dataclasses.asdict(self.settings),
            "step": self.step,
            "model": self.model.state_dict(),
            "averages": self.averages.state,
            "optimizer": self.optimizer.state_dict(),
            "numpy": self.generator.bit_generator.state,
            "torch": torch.get_rng_state(),
        }
        buffer = io.BytesIO()
        torch.save(content, buffer)
        write_atomic(self.checkpoint, buffer.getvalue(), overwrite=True)

    def restore(self) -> None:
        """Goes back to the checkpoint.

        Raises:
            CheckpointError: It is missing, damaged, or of other settings (more or fewer steps are
                allowed).
        """
        try:
            content = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
            before = dataclasses.asdict(Settings(**content["settings"]))
        except FileNotFoundError as error:
            raise CheckpointError(
                f"There is no checkpoint {self.checkpoint}.", fix="Start without --resume."
            ) from error
        except Exception as error:
            raise CheckpointError(
                f"Cannot read the checkpoint {self.checkpoint}: {' '.join(str(error).split())}",
                fix="Start again without it.",
            ) from error
        now = dataclasses.asdict(self.settings)
        changed = [k for k in now if k not in ("steps", "data") and now[k] != before[k]]
        if changed:
            raise CheckpointError(
                "The checkpoint was made with other settings: "
                + ", ".join(f"{key} {before[key]!r}, now {now[key]!r}" for key in changed)
                + ".",
                fix="Use the same settings, or another --out.",
            )
        self.model.load_state_dict(content["model"])
        self.averages.state = {
            key: value.to(self.averages.state[key].device) for key, value in content["averages"].items()
        }
        self.optimizer.load_state_dict(content["optimizer"])
        self.generator.bit_generator.state = content["numpy"]
        torch.set_rng_state(content["torch"].cpu())
        self.step = content["step"]

    def export(self, command: str) -> Path:
        """Writes the averaged weights as ``<preset>.safetensors``, without derived tensors.

        Raises:
            OutputError: It cannot be written.
        """
        family, _ = find_preset(self.settings.preset)
        tensors = {
            name: value.detach().cpu().contiguous()
            for name, value in self.averages.state.items()
            if not name.endswith(family.derived or ("\0",))
        }
        about = {
            "preset": self.settings.preset,
            "step": self.step,
            "steps": self.settings.steps,
            "seed": self.settings.seed,
            "data": Path(self.settings.data).name,
            "command": command,
            "torch": str(torch.__version__),
            "license": "Apache-2.0",
        }
        file = self.folder / f"{self.settings.preset}.safetensors"
        data = to_safetensors(tensors, {"agileir": json.dumps(about, sort_keys=True)})
        write_atomic(file, data, overwrite=True)
        return file


def train(run: Run, command: str, every: int, validate_every: int, console: Console) -> bool:
    """Runs to the last step, or until interrupted.

    Args:
        run: The run, at any step.
        command: What to record in the weights.
        every: Steps between checkpoints and rows of the log.
        validate_every: Steps between validations.
        console: Where progress goes.

    Returns:
        Whether the last step was reached.

    Raises:
        OutputError: A file cannot be written; the last checkpoint is whole.
    """
    settings, log = run.settings, Log(run.folder / "log.csv", run.step)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
    )
    losses: list[float] = []
    started, validation = time.monotonic(), ""
    with Interrupt() as interrupt, Progress(*columns, console=console) as progress:
        bar = progress.add_task(settings.preset, total=settings.steps, completed=run.step, note="")
        while run.step < settings.steps and not interrupt.asked:
            loss, norm = run.advance()
            losses.append(loss)
            ended = run.step == settings.steps
            score = ""
            if run.step % validate_every == 0 or ended:
                score = validation = f"{run.validate():.3f}"
            if run.step % every == 0 or ended:
                mean = sum(losses) / len(losses)
                if not math.isfinite(mean):
                    raise InputError(
                        f"The loss is {mean} at step {run.step}.",
                        why="Training diverged; the last checkpoint is from before that.",
                        fix="Lower --lr or --clip.",
                    )
                run.save()
                log.add(
                    step=run.step,
                    loss=f"{mean:.6f}",
                    lr=f"{settings.learning_rate(run.step - 1):.3e}",
                    grad_norm=f"{norm:.4f}",
                    seconds=f"{time.monotonic() - started:.1f}",
                    validation_psnr=score,
                )
                losses = []
            if score:
                run.export(command)
                if not console.is_terminal:
                    console.print(f"step {run.step}: validation {score} dB")
            shown = f" {validation} dB" if validation else ""
            progress.update(bar, completed=run.step, note=f"loss {loss:.4f}{shown}")
    if run.step < settings.steps:
        run.save()
        run.export(command)
        return False
    return True


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Trains a preset on a folder of images.")
    add = parser.add_argument
    add("preset", help="model to train, such as agileir_tiny_x2")
    add("--data", required=True, help="folder of images; folders in it are searched too")
    add("--out", required=True, type=Path, help="folder of the run")
    add("--steps", type=int, default=10000, help="optimizer steps in all (%(default)s)")
    add("--batch", type=int, default=8, help="crops a step (%(default)s)")
    add("--patch", type=int, default=32, help="side of a crop before up-scaling (%(default)s)")
    add("--lr", type=float, default=1e-3, help="highest learning rate (%(default)s)")
    add("--warmup", type=int, default=200, help="steps of rising learning rate (%(default)s)")
    add("--ema", type=float, default=0.999, help="decay of the averaged weights (%(default)s)")
    add("--clip", type=float, default=1.0, help="largest norm of the gradient (%(default)s)")
    add("--sigma", type=float, help="noise in 8-bit steps (25 for denoising, else 0)")
    add("--eight-bit", type=float, default=0.0, help="share of noisy batches rounded to 8 bits")
    add("--seed", type=int, default=0, help="seed of weights, crops and noise (%(default)s)")
    add("--held-out", type=int, default=4, help="images kept for validation (%(default)s)")
    add("--skip-small", action="store_true", help="leave out images smaller than a crop")
    add("--start", default="", help="safetensors file to start from; its scale may differ")
    add("--attention", choices=("plain", "operator"), help="plain on a CPU, operator on a GPU")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu or cuda")
    add("--no-amp", action="store_true", help="float32 instead of bfloat16 autocast on a GPU")
    add("--every", type=int, default=100, help="steps between checkpoints (%(default)s)")
    add("--validate-every", type=int, default=1000, help="steps between validations (%(default)s)")
    add("--resume", action="store_true", help="go on from the checkpoint in --out")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains as the command line says; returns the exit code."""
    options = parse(arguments)
    given = sys.argv[1:] if arguments is None else arguments
    # folders of this machine mean nothing to those who read the weights
    shown = [Path(word).name if Path(word).is_absolute() else word for word in given]
    command = "python tools/train.py " + shlex.join(shown)
    console = Console(stderr=True)
    on_gpu = options.device.startswith("cuda")
    try:
        _, shape = find_preset(options.preset)
        sigma = 25.0 if shape.get("task") == "denoising" else 0.0
        settings = Settings(
            preset=options.preset,
            data=options.data,
            steps=options.steps,
            batch=options.batch,
            patch=options.patch,
            lr=options.lr,
            warmup=options.warmup,
            ema=options.ema,
            clip=options.clip,
            sigma=sigma if options.sigma is None else options.sigma,
            seed=options.seed,
            held_out=options.held_out,
            attention=options.attention or ("operator" if on_gpu else "plain"),
            amp=on_gpu and not options.no_amp,
            start=options.start,
            skip_small=options.skip_small,
            eight_bit=options.eight_bit,
        )
        with typed_write_errors(options.out):
            options.out.mkdir(parents=True, exist_ok=True)
        run = Run(settings, options.out, options.device)
        if options.resume:
            run.restore()
        elif run.checkpoint.exists():
            raise OutputError(f"{run.checkpoint} exists already.", fix="Add --resume, or choose another --out.")
        finished = train(run, command, options.every, options.validate_every, console)
    except AgileIRError as error:
        console.print(f"Error [{error.code}]: {error}", style="red", markup=False)
        return error.exit_code
    except KeyboardInterrupt:  # while images are read, before the first step
        return INTERRUPTED
    if not finished:
        console.print(f"Interrupted at step {run.step}; go on with --resume.")
        return INTERRUPTED
    console.print(f"Done: {run.folder / settings.preset}.safetensors")
    return 0


if __name__ == "__main__":
    sys.exit(main())
