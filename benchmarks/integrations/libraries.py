"""The libraries of trainers, and which tests show what works with each.

A test is written `file::function`, or `file::function::part` for those of its parameters whose name
has `part`; the files are in `tests/gradflow/integrations`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests" / "gradflow" / "integrations"
PAGE = ROOT / "docs" / "howto" / "integrations.md"
COLUMNS = (
    "epochs", "steps", "weights", "accumulation", "clipping", "precision", "several processes",
    "resume", "errors", "sinks",
)  # fmt: skip
_OURS = re.compile(r"Gradflow(Callback|Handler)")
_BY_HAND = re.compile(r"^import gradflow$|gradflow\.Tracer|\btracer\.")


@dataclass(frozen=True)
class Library:
    """A row of the matrix.

    Args:
        name: as on the page.
        distribution: what is installed.
        oldest: the oldest version that was tried.
        section: of the page, which has the program.
        tests: those that show what a column names, by column. What has none was not tried.
    """

    name: str
    distribution: str
    oldest: str
    section: str
    tests: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def program(self) -> str:
        """The program on the page."""
        found = re.search(
            rf"\n## {self.section}\n(?:(?!\n## ).)*?```python\n(.*?)```",
            PAGE.read_text(encoding="utf-8"),
            re.DOTALL,
        )
        if found is None:
            raise ValueError(f"{PAGE}: no program in the section {self.section}")
        return found[1]

    @property
    def lines(self) -> int:
        """How many lines of the program are there for gradflow."""
        lines = self.program.splitlines()
        pattern = _OURS if any(map(_OURS.search, lines)) else _BY_HAND
        return sum(bool(pattern.search(line)) for line in lines)


def _rows(file: str, *parts: str) -> tuple[str, ...]:
    name = f"{file}::test_rows_are_those_of_the_same_training_as_a_plain_loop"
    return tuple(f"{name}::{part}" if part else name for part in parts or ("",))


_LIGHTNING, _HF, _TRL = "test_lightning", "test_transformers", "test_trl"
_IGNITE, _FASTAI, _YOLO = "test_ignite", "test_fastai", "test_ultralytics"
_HAND, _SINKS = "test_loops_by_hand", "test_sinks"
_TWO = "test_several_processes::test_two_processes_write_and_continue_one_run"
_ONCE = f"{_SINKS}::test_sinks_get_each_step_once_though_the_training_stops_and_goes_on"
_PLAIN = "test_rows_and_weights_are_those_of_a_plain_loop"
_RESTART = "test_a_restart_goes_on_with_the_run"
_WEIGHTS = "test_weights_are_bit_for_bit_those_without_the_callback"
_FAILS = "test_a_training_that_fails_keeps_its_error_and_its_rows"
_TRL_RESTART = (f"{_TRL}::{_RESTART}_and_weights_are_those_without_the_callback",)
_YOLO_NORMS = (
    f"{_YOLO}::test_norms_are_those_that_the_optimizer_receives_after_warm_up_and_clipping",
)
_YOLO_WHOLE = (
    f"{_YOLO}::test_gradients_are_recorded_of_a_whole_accumulation_and_without_the_scale",
)

LIBRARIES = (
    Library("Lightning", "lightning", "2.5.1", "Lightning", {
        "epochs": (
            f"{_LIGHTNING}::test_sanity_check_and_validation_are_no_steps_and_their_metrics_are_"
            "the_epochs",
        ),
        "steps": _rows(_LIGHTNING, "plain"),
        "weights": (f"{_LIGHTNING}::{_WEIGHTS}",),
        "accumulation": _rows(_LIGHTNING, "accumulated"),
        "clipping": _rows(_LIGHTNING, "clipped"),
        "precision": (
            *_rows(_LIGHTNING, "bf16"),
            f"{_LIGHTNING}::test_gradients_are_recorded_without_the_scale_and_skipped_steps_are_"
            "marked",
        ),
        "several processes": (f"{_TWO}::lightning",),
        "resume": (f"{_LIGHTNING}::{_RESTART}_of_its_checkpoint",),
        "errors": (
            f"{_LIGHTNING}::{_FAILS}",
            f"{_LIGHTNING}::test_a_request_to_end_leaves_what_was_recorded",
        ),
        "sinks": (f"{_ONCE}::lightning",),
    }),
    Library("transformers", "transformers", "4.48.0", "transformers", {
        "epochs": (
            f"{_HF}::test_metrics_of_an_epoch_are_its_loss_and_those_of_the_evaluation_after_it",
            f"{_HF}::test_epochs_may_be_numbers_of_steps",
        ),
        "steps": _rows(_HF, "plain"),
        "weights": (f"{_HF}::{_WEIGHTS}",),
        "accumulation": _rows(_HF, "accumulated"),
        "clipping": _rows(_HF, "clipped"),
        "precision": _rows(_HF, "bf16"),
        "several processes": (f"{_TWO}::transformers",),
        "resume": (f"{_HF}::{_RESTART}_of_its_checkpoint",),
        "errors": (
            f"{_HF}::{_FAILS}",
            f"{_HF}::test_a_program_that_ends_by_an_error_leaves_a_run_that_reads",
        ),
        "sinks": (f"{_ONCE}::transformers",),
    }),
    Library("trl, `SFTTrainer`", "trl", "1.16.0", "transformers", {
        "epochs": _rows(_TRL),
        "steps": _rows(_TRL),
        "weights": tuple(f"{one}::whole" for one in _TRL_RESTART),
        "accumulation": _rows(_TRL, "accumulated"),
        "clipping": _rows(_TRL),
        "resume": tuple(f"{one}::whole" for one in _TRL_RESTART),
        "errors": _TRL_RESTART,
    }),
    Library("peft, LoRA", "peft", "0.21.2", "transformers", {
        "epochs": _rows(_TRL, "adapters"),
        "steps": (
            *_rows(_TRL, "adapters"),
            f"{_HF}::test_low_rank_adapters_alone_are_trained_and_recorded",
        ),
        "weights": tuple(f"{one}::adapters" for one in _TRL_RESTART),
        "accumulation": _rows(_TRL, "adapters-accumulated"),
        "clipping": _rows(_TRL, "adapters"),
        "resume": tuple(f"{one}::adapters" for one in _TRL_RESTART),
        "errors": tuple(f"{one}::adapters" for one in _TRL_RESTART),
    }),
    Library("Ultralytics", "ultralytics", "8.3.0", "Ultralytics", {
        "epochs": (f"{_YOLO}::test_an_epoch_has_its_losses_and_those_of_its_validation",),
        "steps": _YOLO_NORMS,
        "weights": (
            f"{_YOLO}::test_weights_and_their_average_are_bit_for_bit_those_without_the_callback",
        ),
        "accumulation": _YOLO_WHOLE,
        "clipping": _YOLO_NORMS,
        "precision": _YOLO_WHOLE,
        "resume": (
            f"{_YOLO}::test_a_training_that_fails_keeps_its_error_and_goes_on_with_its_run",
        ),
        "errors": (
            f"{_YOLO}::test_a_training_that_fails_keeps_its_error_and_goes_on_with_its_run",
        ),
        "sinks": _YOLO_NORMS,
    }),
    Library("accelerate", "accelerate", "1.1.0", "accelerate", {
        "epochs": (f"{_HAND}::test_accelerate",),
        "steps": (f"{_HAND}::test_accelerate",),
        "weights": (f"{_HAND}::test_accelerate",),
        "accumulation": (f"{_HAND}::test_accelerate",),
        "clipping": (f"{_HAND}::test_accelerate",),
        "precision": (f"{_HAND}::test_accelerate::bf16",),
    }),
    Library("Ignite", "pytorch-ignite", "0.5.0", "Ignite", {
        "epochs": (f"{_IGNITE}::{_PLAIN}",),
        "steps": (f"{_IGNITE}::{_PLAIN}",),
        "weights": (f"{_IGNITE}::{_PLAIN}",),
        "accumulation": (f"{_IGNITE}::{_PLAIN}::accumulated",),
        "clipping": (f"{_IGNITE}::{_PLAIN}",),
        "precision": (f"{_IGNITE}::{_PLAIN}::bf16",),
        "resume": (f"{_IGNITE}::{_RESTART}",),
        "errors": (
            f"{_IGNITE}::test_an_error_stays_with_whom_it_was",
            f"{_IGNITE}::test_an_interruption_stays_one",
        ),
        "sinks": (f"{_IGNITE}::{_PLAIN}",),
    }),
    Library("fastai", "fastai", "2.7.18", "fastai", {
        "epochs": (f"{_FASTAI}::{_PLAIN}",),
        "steps": (f"{_FASTAI}::{_PLAIN}",),
        "weights": (f"{_FASTAI}::{_PLAIN}",),
        "accumulation": (f"{_FASTAI}::{_PLAIN}::accumulated",),
        "clipping": (f"{_FASTAI}::{_PLAIN}::accumulated",),
        "resume": (f"{_FASTAI}::{_RESTART}",),
        "errors": (f"{_FASTAI}::test_a_learner_that_fails_keeps_its_error_and_its_rows",),
        "sinks": (f"{_FASTAI}::{_PLAIN}",),
    }),
    Library("skorch", "skorch", "1.4.0", "skorch", {
        "epochs": (f"{_HAND}::test_skorch",),
        "steps": (f"{_HAND}::test_skorch",),
        "weights": (f"{_HAND}::test_skorch",),
    }),
    Library("stable-baselines3, PPO", "stable-baselines3", "2.9.2", "stable-baselines3", {
        "epochs": (f"{_HAND}::test_stable_baselines",),
        "steps": (f"{_HAND}::test_stable_baselines",),
        "weights": (f"{_HAND}::test_stable_baselines",),
        "clipping": (f"{_HAND}::test_stable_baselines",),
    }),
)  # fmt: skip
