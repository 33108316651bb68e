"""The processor at hand: its vectors and registers, machine code for it, and a cache of that code on disk.

Code is kept by the SHA-256 of all it was made from, under ``$PRINCIPLED_CACHE``, else ``$XDG_CACHE_HOME/principled``,
else ``~/.cache/principled``. A file whose own digest does not fit is made anew; a folder that cannot be written is done
without. Machine code is run as it is read: the folder belongs to its user alone.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ..files.atomic import write_atomically

DIGEST = 32  # bytes of a SHA-256


@cache
def llvm() -> Any:
    """llvmlite's binding, ready for this machine.

    Raises:
        ModuleNotFoundError: llvmlite is absent; the line says how to install it.
    """
    try:
        from llvmlite import binding
    except ModuleNotFoundError:
        raise ModuleNotFoundError("principled.runtime needs llvmlite: pip install principled[runtime]") from None
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    return binding


@dataclass(frozen=True)
class Target:
    """What code is generated for.

    Args:
        cpu: LLVM's name of the processor.
        features: LLVM's feature string, as ``+avx2,-avx512f``.
        lanes: float32 numbers in a vector.
        registers: vectors that the processor holds.
    """

    cpu: str
    features: str
    lanes: int
    registers: int

    @classmethod
    def host(cls, features: str = "") -> Target:
        """This machine.

        Args:
            features: what to do without or with beyond what it reports, as ``-avx512f`` or ``-avx,-avx2,-fma``. Asking
                for an instruction that the processor lacks ends in an illegal instruction.
        """
        binding = llvm()
        known = dict(binding.get_host_cpu_features())
        known |= {word[1:]: word[0] == "+" for word in features.split(",") if word}
        text = ",".join(f"{'+' if on else '-'}{name}" for name, on in sorted(known.items()))
        arm = binding.get_process_triple().startswith(("aarch64", "arm64"))
        has_512 = known.get("avx512f", False) and known.get("avx512vl", False)
        lanes = 16 if has_512 else 8 if known.get("avx", False) else 4
        return cls(binding.get_host_cpu_name(), text, lanes, 32 if has_512 or arm else 16)

    @property
    def accumulators(self) -> int:
        """Vectors that a kernel adds into at once: all but one for the weight and one to spare."""
        return self.registers - 2


def cache_folder() -> Path:
    """Where compiled code and measured thresholds are kept."""
    if own := os.environ.get("PRINCIPLED_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "principled"


def remember(path: Path, content: bytes) -> None:
    """Keep bytes with their digest; where the folder cannot be written, do nothing."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomically(path, lambda file: file.write(hashlib.sha256(content).digest() + content))


def remembered(path: Path) -> bytes | None:
    """What :func:`remember` kept; None if there is none, or it is damaged."""
    try:
        kept = path.read_bytes()
    except OSError:
        return None
    content = kept[DIGEST:]
    return content if hashlib.sha256(content).digest() == kept[:DIGEST] else None


_linking = threading.Lock()  # LLVM's tables are the process's


class Library:
    """Machine code of a text in LLVM's language, loaded; it lives as long as this object.

    Args:
        text: a module.
        names: its functions that are called.
        target: what to compile for.
    """

    def __init__(self, text: str, names: Sequence[str], target: Target) -> None:
        binding = llvm()
        version = ".".join(map(str, binding.llvm_version_info))
        key = hashlib.sha256("\0".join((text, target.cpu, target.features, version)).encode()).hexdigest()
        path = cache_folder() / f"{key}.o"
        self.from_cache = False

        def recall(_: Any) -> bytes | None:
            """The code of the cache, if it is whole."""
            code = remembered(path)
            self.from_cache = code is not None
            return code

        with _linking:
            machine = binding.Target.from_default_triple().create_target_machine(
                cpu=target.cpu, features=target.features, opt=3, jit=True
            )
            module = binding.parse_assembly(text)
            module.triple, module.data_layout = machine.triple, str(machine.target_data)
            self._engine = binding.create_mcjit_compiler(module, machine)
            self._engine.set_object_cache(lambda _, code: remember(path, code), recall)
            self._engine.finalize_object()
            self.address = {name: int(self._engine.get_function_address(name)) for name in names}
