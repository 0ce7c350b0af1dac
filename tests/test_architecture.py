"""The shape of the code: who may import whom, sizes, names, what an import may load, and a test file for every module.

Each rule is a function of a file's path below src/vitrail and its text, and gives the offences it finds as sentences;
the lower half of this file shows each rule an offence. The layering is explained in CONTRIBUTING.md.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "vitrail"

# A file imports only from layers above its own line here; names of one line do not import each other.
LAYERS = (
    ("errors",),
    ("hub",),
    ("models", "data", "figures"),
    ("config",),
    ("recipes", "checkpoint", "weight_files", "descriptions", "fitting", "evaluation"),
    ("predictions", "runs", "environment"),
    ("engines", "pretrained", "sorting", "suggestions"),
    ("training", "interpretation"),
    ("explanations",),
    ("classifier",),
    ("labelling", "embedding", "initialization", "loading", "reading"),
    ("preparation", "history"),
    ("evaluation_data",),
    ("probing", "comparison", "searching", "exporting", "planning"),
    ("inspecting", "explaining", "method_checking"),
    ("reporting",),
    ("session", "publishing", "auditing"),
    ("api",),
    ("serving", "sklearn", "cli"),
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
UNLAYERED = ("__init__.py", "__main__.py")  # the package itself hands on names of every layer, lazily

VERBS = frozenset(
    {"train", "evaluate", "predict", "explain", "inspect", "report", "compare", "audit", "pretrain", "tune", "export"}
    | {"serve", "push", "shard", "plan", "embed", "load", "create_model"}
    | {"list_models", "list_runs", "difference", "linear_probe", "knn"}
)
VERB_ALLOWED = frozenset({"data/audit.py"})  # the noun; vitrail.data has no verb of that name to overwrite

IMAGE_FILES = (
    "data/heif.py",
    "data/images.py",
    "data/preprocess.py",
)  # they also serve exported models, in processes without torch
IMAGE_MODULES = frozenset(
    {"PIL", "numpy", "pydantic", "pi_heif"}
    | {f"vitrail.{name}" for name in ("errors", "data.heif", "data.images", "data.preprocess")}
)
EAGER_IN_INIT = frozenset({"pydantic", "typer", "click", "rich", "vitrail.errors", "vitrail.models.catalog"})
HEAVY = ("torch", "torchvision", "timm", "sklearn", "scipy", "matplotlib", "datasets", "pandas", "pyarrow", "PIL")
UNPICKLERS = frozenset({"pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"})
PROCESSES = frozenset({"multiprocessing", "_posixsubprocess"})
VAGUE = frozenset({"utils", "util", "helpers", "helper", "misc", "common"})

MAX_FILE_LINES, MAX_CLI_LINES, MAX_FUNCTION_LINES, MAX_PARAMETERS = 400, 80, 60, 8

Rule = Callable[[str, str], list[str]]
FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


def part_of(path: str) -> str:
    """The layered name a file belongs to: "data" for data/images.py, "api" for api.py."""
    return PurePosixPath(path).parts[0].removesuffix(".py")


def imported_modules(path: str, node: ast.AST) -> list[str]:
    """The absolute names of what an import statement, wherever it stands, may bring in: "vitrail.data.images"."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    package = ["vitrail", *PurePosixPath(path).parent.parts]
    start = ".".join([*package[: len(package) - node.level + 1], *filter(None, [node.module])])
    base = start if node.level else str(node.module)
    return [f"{base}.{alias.name}" for alias in node.names]


def written_imports(path: str, tree: ast.AST) -> Iterator[tuple[int, str]]:
    """All that the imports of a file may bring in, with their lines; also those in functions and for type checkers."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from ((node.lineno, name) for name in imported_modules(path, node))


def named_modules(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Texts such as "vitrail.models.vit", with their lines: a lazy table imports what it names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            module = node.value.split(":")[0]
            if re.fullmatch(r"vitrail(\.\w+)+", module) and module.split(".")[1] in RANK:
                yield node.lineno, module


def is_among(name: str, modules: frozenset[str]) -> bool:
    """Whether a dotted name is one of `modules` or lies within one."""
    parts = name.split(".")
    return any(".".join(parts[:count]) in modules for count in range(1, len(parts) + 1))


def layering(path: str, text: str) -> list[str]:
    if path in UNLAYERED:
        return []
    part, tree = part_of(path), ast.parse(text)
    if part not in RANK:
        return [f"{part} has no place in the layering; give it one in LAYERS"]
    offences: list[str] = []
    for line, name in [*written_imports(path, tree), *named_modules(tree)]:
        head, _, rest = name.partition(".")
        other = rest.split(".")[0]
        if head != "vitrail" or other in (part, "__version__"):
            continue
        if other not in RANK:
            offences.append(f"line {line} imports {name}; import from the module that defines the name")
        elif RANK[other] >= RANK[part]:
            offences.append(f"line {line}: {part} must not import {other}")
    return offences


def outermost_functions(node: ast.AST) -> Iterator[FunctionNode]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, FunctionNode):
            yield child
        else:
            yield from outermost_functions(child)


def sizes(path: str, text: str) -> list[str]:
    ceiling = MAX_CLI_LINES if part_of(path) == "cli" else MAX_FILE_LINES
    offences: list[str] = []
    if (count := len(text.splitlines())) > ceiling:
        offences.append(f"{count} lines, more than {ceiling}")
    tree = ast.parse(text)
    for function in outermost_functions(tree):  # with what is nested in them
        assert function.end_lineno is not None
        if (count := function.end_lineno - function.lineno + 1) > MAX_FUNCTION_LINES:
            offences.append(f"{function.name} has {count} lines, more than {MAX_FUNCTION_LINES}")
    for node in ast.walk(tree):
        if isinstance(node, FunctionNode) and node.name == "__init__":
            arguments = node.args
            named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs][1:]
            count = len(named) + (arguments.vararg is not None) + (arguments.kwarg is not None)
            if count > MAX_PARAMETERS:
                offences.append(f"line {node.lineno}: {count} parameters, more than {MAX_PARAMETERS}; take a config")
    return offences


def names(path: str, text: str) -> list[str]:
    parts = [part.removesuffix(".py") for part in PurePosixPath(path).parts]
    offences = [f"{part} says nothing; name the file for its noun" for part in parts if part.strip("_") in VAGUE]
    if parts[0] != "cli" and path not in VERB_ALLOWED:
        offences += [
            f"{part} is a public verb, which importing the module would overwrite" for part in VERBS & {*parts}
        ]
    return offences


def light_images(path: str, text: str) -> list[str]:
    if path not in IMAGE_FILES:
        return []
    allowed = IMAGE_MODULES | sys.stdlib_module_names
    return [
        f"line {line} imports {name}; a process that serves an export has Pillow, numpy and pydantic only"
        for line, name in written_imports(path, ast.parse(text))
        if not is_among(name, allowed)
    ]


def eager_statements(tree: ast.Module) -> Iterator[ast.AST]:
    """What runs when a module is imported: not the bodies of functions, not what only a type checker reads."""
    waiting: list[ast.AST] = list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, FunctionNode) or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)):
            continue
        yield node
        waiting += ast.iter_child_nodes(node)


def lazy_init(path: str, text: str) -> list[str]:
    if PurePosixPath(path).name != "__init__.py":
        return []
    brought = [name for node in eager_statements(ast.parse(text)) for name in imported_modules(path, node)]
    allowed = EAGER_IN_INIT | sys.stdlib_module_names
    return [f"imports {name} when it is imported; hand it on lazily" for name in brought if not is_among(name, allowed)]


def safe_loading(path: str, text: str) -> list[str]:
    offences: list[str] = []
    for node in ast.walk(ast.parse(text)):
        offences += [f"imports {name}" for name in imported_modules(path, node) if name.split(".")[0] in UNPICKLERS]
        if isinstance(node, ast.Call):
            given = {word.arg: ast.unparse(word.value) for word in node.keywords}
            if ast.unparse(node.func) == "torch.load" and given.get("weights_only") != "True":
                offences.append(f"line {node.lineno}: torch.load without weights_only=True")
            if given.get("allow_pickle", "False") != "False":
                offences.append(f"line {node.lineno}: allow_pickle")
    return offences


def no_stubs(path: str, text: str) -> list[str]:
    return [
        f"line {node.lineno}: NotImplementedError; leave out what is not there yet"
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Name) and node.id == "NotImplementedError"
    ]


def portable(path: str, text: str) -> list[str]:
    """What is not the same everywhere: text in the locale's encoding, and processes, which Windows starts otherwise."""
    offences: list[str] = []
    for node in ast.walk(ast.parse(text)):
        offences += [f"imports {name}" for name in imported_modules(path, node) if name.split(".")[0] in PROCESSES]
        if not isinstance(node, ast.Call) or {word.arg for word in node.keywords} & {"encoding", None}:
            continue
        called = ast.unparse(node.func)
        modes = [word.value for word in node.keywords if word.arg == "mode"] or node.args[called == "open" :][:1]
        binary = any(isinstance(mode, ast.Constant) and "b" in str(mode.value) for mode in modes)
        method = called.rpartition(".")[2]
        if (called in ("open", "os.fdopen") and not binary) or (method == "open" and is_text_mode(modes)):
            offences.append(f"line {node.lineno}: a text file without an encoding")
        elif method in ("read_text", "write_text"):
            offences.append(f"line {node.lineno}: {method} without an encoding")
        elif called in ("os.fork", "subprocess.Popen") or any(word.arg == "text" for word in node.keywords):
            offences.append(f"line {node.lineno}: {called}, or its text without an encoding")
    return offences


def is_text_mode(modes: list[ast.expr]) -> bool:
    return any(isinstance(mode, ast.Constant) and re.fullmatch("[rwax][+t]?", str(mode.value)) for mode in modes)


RULES: tuple[Rule, ...] = (layering, sizes, names, light_images, lazy_init, safe_loading, no_stubs, portable)


def missing_tests(modules: list[str], tests: list[str]) -> list[str]:
    """The test files that are not there: tests/data/test_images.py for data/images.py, at least one for all of cli/."""
    wanted: list[str] = []
    for path in map(PurePosixPath, modules):
        if path.parts[0] == "cli":
            if not any(re.fullmatch(r"test_cli\.py|cli/test_\w+\.py", test) for test in tests):
                wanted.append("cli/test_<command>.py")
        elif path.name not in UNLAYERED:
            wanted.append(str(path.with_name(f"test_{path.name}")))
    return sorted({*wanted} - {*tests})


def loaded_by(module: str) -> set[str]:
    """The top-level modules in memory after `import module` in a new process."""
    code = f"import sys, {module}; print(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def files_below(folder: Path) -> dict[str, str]:
    found = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*.py"))}
    return {name: path.read_text(encoding="utf-8") for name, path in found.items()}


# The code


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_code_keeps_the_rule(rule: Rule) -> None:
    files = files_below(SOURCE)
    assert "errors.py" in files
    assert [f"{path}: {offence}" for path, text in files.items() for offence in rule(path, text)] == []


def test_every_module_has_its_test_file() -> None:
    assert missing_tests([*files_below(SOURCE)], [*files_below(ROOT / "tests")]) == []


@pytest.mark.parametrize("module", ["vitrail", "vitrail.cli"])
def test_import_is_light(module: str) -> None:
    assert loaded_by(module) & {*HEAVY} == set()


def test_reading_images_needs_neither_torch_nor_the_data_libraries() -> None:
    assert loaded_by("vitrail.data.images, vitrail.data.preprocess") & {*HEAVY} == {"PIL"}


def test_every_package_imports_lightly() -> None:
    packages = [f"vitrail.{path.parent.name}" for path in sorted(SOURCE.glob("*/__init__.py"))]
    assert loaded_by(", ".join(packages)) & {*HEAVY} == set()


# The rules, each shown offences, and what comes close without being one


def long_function(lines: int) -> str:
    return "def f():\n" + "    x = 1\n" * (lines - 1)


@pytest.mark.parametrize(
    ("rule", "path", "text"),
    [
        (layering, "models/vit.py", "import vitrail.data.images"),
        (layering, "models/vit.py", "from vitrail import data"),
        (layering, "models/vit.py", "from vitrail.config import RunConfig"),
        (layering, "models/vit.py", "from ..data import images"),
        (layering, "models/vit.py", "def f():\n    from vitrail.training import loop"),
        (layering, "models/vit.py", "if TYPE_CHECKING:\n    from vitrail.api import Run"),
        (layering, "models/__init__.py", "TABLE = {'train': 'vitrail.training.loop:train'}"),
        (layering, "models/__init__.py", "from ..data import images"),
        (layering, "training/loop.py", "from vitrail import train"),
        (layering, "training/loop.py", "import vitrail"),
        (layering, "sklearn.py", "import vitrail.cli"),
        (layering, "errors.py", "from .config import RunConfig"),
        (layering, "colours.py", ""),
        (sizes, "data/images.py", "x = 1\n" * 401),
        (sizes, "cli/train.py", "x = 1\n" * 81),
        (sizes, "data/images.py", long_function(61)),
        (sizes, "data/images.py", "class A:\n" + "".join(f"    {line}\n" for line in long_function(61).splitlines())),
        (sizes, "data/images.py", "class A:\n    def __init__(self, a, b, c, d, /, e, f, *, g, h, i): ..."),
        (sizes, "data/images.py", "class A:\n    def __init__(self, a, b, c, d, e, f, g, *h, **i): ..."),
        (names, "train.py", ""),
        (names, "training/pretrain.py", ""),
        (names, "export/onnx.py", ""),
        (names, "data/utils.py", ""),
        (names, "data/_helpers.py", ""),
        (names, "cli/misc.py", ""),
        (light_images, "data/images.py", "def f():\n    import torch"),
        (light_images, "data/preprocess.py", "from vitrail.data.named import NAMED"),
        (light_images, "data/preprocess.py", "from .named import NAMED"),
        (lazy_init, "models/__init__.py", "from vitrail.models.vit import VisionTransformer"),
        (lazy_init, "models/__init__.py", "from .vit import VisionTransformer"),
        (lazy_init, "__init__.py", "try:\n    import torch\nexcept ImportError: pass"),
        (safe_loading, "checkpoint.py", "import pickle"),
        (safe_loading, "checkpoint.py", "def f():\n    from joblib import load"),
        (safe_loading, "checkpoint.py", "torch.load(path)"),
        (safe_loading, "checkpoint.py", "torch.load(path, weights_only=False)"),
        (safe_loading, "checkpoint.py", "np.load(path, allow_pickle=True)"),
        (no_stubs, "api.py", "def f():\n    raise NotImplementedError('later')"),
        (no_stubs, "api.py", "def f():\n    raise NotImplementedError"),
        (portable, "runs.py", "Path(name).read_text()"),
        (portable, "runs.py", "path.write_text(text)"),
        (portable, "runs.py", "path.open('a')"),
        (portable, "runs.py", "open(name)"),
        (portable, "runs.py", "open(name, mode='w')"),
        (portable, "runs.py", "subprocess.run(command, text=True)"),
        (portable, "data/loader.py", "from multiprocessing import Pool"),
        (portable, "data/loader.py", "os.fork()"),
    ],
)
def test_the_rule_finds_the_offence(rule: Rule, path: str, text: str) -> None:
    assert len(rule(path, text)) == 1


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("__init__.py", "def __getattr__(name):\n    from vitrail import api"),
        ("__main__.py", "from vitrail.cli import main"),
        ("api.py", "from vitrail import __version__, config\nfrom vitrail.models import create_model"),
        ("cli/train.py", "from vitrail.cli import output\nfrom .output import show\nimport vitrail.errors"),
        ("data/audit.py", "from . import images\nimport hashlib, scipy"),
        (
            "data/images.py",
            "from __future__ import annotations\nimport os, PIL.Image\nfrom vitrail.errors import DataError",
        ),
        ("models/__init__.py", "import importlib\nif TYPE_CHECKING:\n    from vitrail.models.vit import ViTConfig"),
        ("checkpoint.py", "torch.load(path, weights_only=True)\nnp.load(path, allow_pickle=False)"),
        ("data/images.py", "x = 1\n" * 340 + long_function(60)),
        ("data/images.py", "class A:\n    def __init__(self, a, b, c, d, e, f, g, h): ..."),
        ("data/images.py", "logger = getLogger('vitrail.data')\n'vitrail.example'"),
        ("runs.py", "open(name, 'rb')\npath.open('xb')\npath.open('w', encoding='utf-8')\nImage.open(path)"),
        ("runs.py", "path.read_text(encoding='utf-8')\nsubprocess.run(command, capture_output=True)"),
    ],
)
def test_no_rule_finds_an_offence_where_there_is_none(path: str, text: str) -> None:
    assert [offence for rule in RULES for offence in rule(path, text)] == []


def test_a_missing_test_file_is_found() -> None:
    modules = [
        "__init__.py",
        "__main__.py",
        "api.py",
        "data/__init__.py",
        "data/images.py",
        "cli/train.py",
        "cli/runs.py",
    ]
    assert missing_tests(modules, []) == ["cli/test_<command>.py", "data/test_images.py", "test_api.py"]
    assert missing_tests(modules, ["test_api.py", "data/test_images.py", "cli/test_train.py"]) == []


def test_a_heavy_import_is_found() -> None:
    assert loaded_by("PIL.Image") & {*HEAVY} == {"PIL"}
