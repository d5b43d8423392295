"""A fast start of models: packages that libraries import at their own start, and no command uses, wait until they are used.

diffusers, transformers and accelerate import torch's compiler, bitsandbytes, peft, scipy and 200 other models for single
features. On one core that takes 3 of the 5 seconds before `sanactl sample` begins. `defer_imports` puts stand-ins in the
place of what is named in `_STAND_INS`, while the module that wants it is executed. A stand-in imports the real package at its
first use, so that no feature is lost: peft at the first LoRA layer, the compiler at the first `torch.compile`.

Names that another version of a library does not have cost nothing. A module that cannot be executed with stand-ins is executed
without. SANACTL_DEFER_IMPORTS=0 turns all of this off.
"""

from __future__ import annotations

import builtins
import functools
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import FunctionType, ModuleType
from typing import Any

__all__ = ["defer_imports"]

_PEFT = ("peft.helpers", "peft.tuners.tuners_utils")
_SCIPY = ("scipy", "scipy.stats")
# Module, or package with `.*` for all of its modules: what it imports for single features.
_STAND_INS: dict[str, tuple[str, ...]] = {
    "diffusers.hooks.layerwise_casting": _PEFT,
    "diffusers.loaders.lora_base": _PEFT,
    "diffusers.quantizers.bitsandbytes.utils": ("bitsandbytes",),
    "diffusers.schedulers.*": _SCIPY,
    "diffusers.utils.torch_utils": ("torch._dynamo",),
    "diffusers.loaders.single_file_utils": ("requests",),
    "diffusers.utils.loading_utils": ("requests",),
    "diffusers.utils.remote_utils": ("requests",),
    "torch.utils.flop_counter": ("triton.runtime.jit",),
    "transformers.distributed.checkpoint": ("torch.distributed.checkpoint.hf_storage",),
    "transformers.distributed.fsdp": ("torch.distributed._composable.fsdp", "torch.distributed.fsdp"),
    "transformers.integrations.bitsandbytes": ("bitsandbytes",),
    "transformers.loss.*": ("scipy.optimize",),
    "transformers.masking_utils": ("torch._dynamo._trace_wrapped_higher_order_op",),
}
# Packages whose `__init__` imports all of diffusers' models. It is executed when a name is looked up in the package; its
# modules can be imported before that.
_PACKAGES = ("diffusers.models.autoencoders", "diffusers.models.transformers", "diffusers.models.unets")


def defer_imports() -> None:
    """Do so in this process, for the modules that are not imported yet."""
    off = os.environ.get("SANACTL_DEFER_IMPORTS") == "0"
    if off or any(isinstance(finder, _Finder) for finder in sys.meta_path):
        return
    sys.meta_path.insert(0, _Finder())
    if "importlib.metadata" in sys.modules:
        _after_metadata(sys.modules["importlib.metadata"])


class _Finder(MetaPathFinder):
    """Finds the modules named above where they are, and has them executed by `_Executed`."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: Any = None) -> ModuleSpec | None:
        if name not in _AFTER and name not in _PACKAGES and not _stand_ins(name):
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Executed(spec.loader)
        return spec


class _Executed(Loader):
    """A loader around the usual one."""

    def __init__(self, usual: Any) -> None:
        self._usual = usual

    def __getattr__(self, name: str) -> Any:  # of resources and of the source
        return getattr(self._usual, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        if spec.name in _PACKAGES:
            return _Package(spec.name)
        made: ModuleType | None = self._usual.create_module(spec)
        return made

    def exec_module(self, module: ModuleType) -> None:
        if isinstance(module, _Package):
            module.execute = lambda: self._usual.exec_module(module)
            return
        before, names = dict(vars(module)), _stand_ins(module.__name__)
        try:
            with _standing_in(module, names):
                self._usual.exec_module(module)
        except (
            Exception
        ):  # of any kind: a stand-in does not fit; an error of the module itself comes again below
            if not names:
                raise
            vars(module).clear()
            vars(module).update(before)
            self._usual.exec_module(module)
        _AFTER.get(module.__name__, lambda module: None)(module)


class _Package(ModuleType):
    """A package that is executed when a name is looked up in it."""

    execute: Callable[[], None] | None = None

    def __getattr__(self, name: str) -> Any:
        execute, self.execute = self.execute, None
        if execute is None or (name.startswith("__") and name.endswith("__")):
            self.execute = execute
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        execute()
        return getattr(self, name)


def _stand_ins(name: str) -> tuple[str, ...]:
    return _STAND_INS.get(name) or _STAND_INS.get(f"{name.rpartition('.')[0]}.*", ())


@contextmanager
def _standing_in(module: ModuleType, names: Sequence[str]) -> Iterator[None]:
    """In the body, `import NAME` in this module, and in no other one, gives a stand-in for what is not imported yet."""
    if not names:
        yield
        return
    given = {name: _Module(name) for name in names}
    open_ = True

    def imported(name: str, *arguments: Any, **named: Any) -> Any:
        there = name in sys.modules or importlib.util.find_spec(name.partition(".")[0]) is None
        if not open_ or name not in given or there:
            return builtins.__import__(name, *arguments, **named)
        fromlist = named.get("fromlist", arguments[2] if len(arguments) > 2 else None)
        return given[name if fromlist else name.partition(".")[0]]  # as `import` itself does

    vars(module)["__builtins__"] = {**vars(builtins), "__import__": imported}
    try:
        yield
    finally:
        open_ = False
        for stand_in in given.values():
            stand_in.__dict__["_standing"] = False


class _Module(ModuleType):
    """Stands in for a module: while its importer is executed, its names are `_Name`s; later they are the real ones."""

    _standing = True

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if self.__name__ == "torch._dynamo" and name in _MARKS:
            return functools.partial(_mark, name)
        if self._standing:
            return _Name(self.__name__, name)
        return getattr(importlib.import_module(self.__name__), name)


class _Name:
    """Stands in for a function or a class of a module; calling it, an attribute of it or a subclass imports the module.

    No object is an instance of a class whose module was not imported.
    """

    def __init__(self, module: str, name: str) -> None:
        self._module, self._name = module, name

    def _real(self) -> Any:
        return getattr(importlib.import_module(self._module), self._name)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self._real()(*arguments, **named)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real(), name)

    def __instancecheck__(self, instance: Any) -> bool:
        return self._module in sys.modules and isinstance(instance, self._real())

    def __subclasscheck__(self, subclass: type) -> bool:
        return self._module in sys.modules and issubclass(subclass, self._real())

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[Any, ...]:
        return (self._real(),)

    def __or__(self, other: Any) -> Any:  # in an annotation
        return Any

    __ror__ = __or__


# Functions of torch's compiler that note something about a function and return it, and what was to be noted before the
# compiler was imported.
_MARKS = ("allow_in_graph", "assume_constant_result")
_NOTED: list[tuple[str, Any]] = []


def _mark(mark: str, function: Any) -> Any:
    if "torch._dynamo" in sys.modules:
        return getattr(sys.modules["torch._dynamo"], mark)(function)
    _NOTED.append((mark, function))
    return function


def _after_torch(module: Any) -> None:
    """Decorators `torch._dynamo.NAME` import the compiler."""
    compiler = _Module("torch._dynamo")
    compiler.__dict__["_standing"] = False
    module._dynamo = compiler  # the real one takes its place when it is imported


def _after_compiler(module: Any) -> None:
    for mark, function in _NOTED:
        getattr(module, mark)(function)
    _NOTED.clear()


def _after_compile(module: Any) -> None:
    """torch excludes functions of its own from compilation when they are called, and imports the compiler for that."""
    module._disable_dynamo = _disable_later(module._disable_dynamo)


def _after_torch_compiler(module: Any) -> None:
    """A function is excluded from compilation when it is decorated, which needs no compiler."""
    for mark in _MARKS:
        setattr(module, mark, functools.partial(_mark, mark))
    module.disable = _disable_later(module.disable)


def _disable_later(disable: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(disable)
    def later(fn: Any = None, recursive: bool = True, **named: Any) -> Any:
        if fn is None:
            return functools.partial(later, recursive=recursive, **named)
        if not isinstance(fn, FunctionType) or "torch._dynamo" in sys.modules:
            return disable(fn, recursive, **named)

        @functools.wraps(fn)
        def run(*arguments: Any, **keywords: Any) -> Any:
            # Where the compiler was not imported, nothing is compiled.
            return (excluded() if "torch._dynamo" in sys.modules else fn)(*arguments, **keywords)

        @functools.cache
        def excluded() -> Any:
            return disable(fn, recursive, **named)

        return run

    return later


class _Distributions(Mapping[str, list[str]]):
    """`importlib.metadata.packages_distributions()`, made when something is looked up in it."""

    def __init__(self, listed: Callable[[], Mapping[str, list[str]]]) -> None:
        self._listed = functools.cache(listed)

    def __getitem__(self, name: str) -> list[str]:
        return self._listed()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._listed())

    def __len__(self) -> int:
        return len(self._listed())


def _after_metadata(module: Any) -> None:
    """diffusers and transformers each list the files of all installed packages (0.2 s), and look up one or two."""
    found = _Distributions(module.packages_distributions)
    module.packages_distributions = lambda: found


def _after_peft_utils(module: Any) -> None:
    """Each forward pass scales LoRA layers by 1.0, which does nothing but import peft."""
    for name in ("scale_lora_layers", "unscale_lora_layers"):
        function = getattr(module, name, None)
        if function is not None:
            setattr(module, name, _unless_one(function))


def _unless_one(function: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(function)
    def scaled(model: Any, weight: float | None = None) -> None:
        if weight is not None and weight != 1.0:
            function(model, weight)

    return scaled


# What is done when a module was executed.
_AFTER: dict[str, Callable[[Any], None]] = {
    "diffusers.utils.peft_utils": _after_peft_utils,
    "importlib.metadata": _after_metadata,
    "torch": _after_torch,
    "torch._compile": _after_compile,
    "torch._dynamo": _after_compiler,
    "torch.compiler": _after_torch_compiler,
}
