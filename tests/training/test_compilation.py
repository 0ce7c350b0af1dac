import shutil

import pytest
import torch
from torch import nn

from vitrail.errors import CheckpointError, Interrupted
from vitrail.training import compilation, loop
from vitrail.training.compilation import compile_if_faster, compiling_pays, has_compiler

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
COMPILERS = ("c++", "g++", "clang++", "cl")
ON = {"training.compile": "on"}


@pytest.fixture
def tools(monkeypatch):
    """`tools("g++")`: this machine has these compilers and no others."""
    monkeypatch.delenv("CXX", raising=False)

    def install(*names):
        monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}" if name in names else None)

    return install


@pytest.fixture
def doubled(monkeypatch):
    """Compiling takes no time and gives the model with logits twice as large, so that it can be told apart."""

    class Doubled(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, images):
            return 2 * self.model(images)

    monkeypatch.setattr(loop, "compile_model", Doubled)
    monkeypatch.setattr(compilation, "compile_if_faster", lambda model, images, autocast: Doubled(model))
    monkeypatch.setattr(compilation, "has_compiler", lambda device: True)
    monkeypatch.setattr(compilation, "compiling_pays", lambda device, seconds_left: True)


@pytest.mark.parametrize("name", COMPILERS)
def test_one_compiler_is_enough(tools, name):
    tools(name)
    assert has_compiler(CPU)


def test_without_compiler_there_is_none(tools):
    tools()
    assert not has_compiler(CPU)
    assert not has_compiler(CUDA)


def test_the_environment_names_the_compiler(tools, monkeypatch):
    tools("g++", "my-c++")
    monkeypatch.setenv("CXX", "my-c++")
    assert has_compiler(CPU)
    monkeypatch.setenv("CXX", "gone-c++")
    assert not has_compiler(CPU)


def test_cuda_needs_triton_too(tools, monkeypatch):
    tools("g++")
    for found in (object(), None):
        monkeypatch.setattr(compilation.importlib.util, "find_spec", lambda name, found=found: found)
        assert has_compiler(CUDA) == (found is not None)
        assert has_compiler(CPU)


def test_compiling_pays_when_it_is_repaid_twice(tools, monkeypatch):
    tools("g++")
    monkeypatch.setattr(compilation.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(compilation, "COMPILE_SECONDS", {"cpu": 60.0, "cuda": 30.0})
    monkeypatch.setattr(compilation, "LEAST_SAVING", {"cpu": 0.0, "cuda": 0.1})
    assert not compiling_pays(CUDA, 600.0)  # saves 60 s, costs 30 s
    assert compiling_pays(CUDA, 601.0)
    assert not compiling_pays(CPU, 1e9)
    assert not compiling_pays(torch.device("mps"), 1e9)
    tools()
    assert not compiling_pays(CUDA, 601.0)


def test_the_faster_one_is_taken_and_weights_stay(monkeypatch):
    model = nn.Linear(4, 3)
    weights = [parameter.detach().clone() for parameter in model.parameters()]
    compiled = nn.Sequential(model)
    monkeypatch.setattr(compilation, "compile_model", lambda model: compiled)
    seconds = {model: 2.0, compiled: 1.0}
    real = compilation._time_pass

    def timed(candidate, images, autocast):
        real(candidate, images, autocast)
        return seconds[candidate]

    monkeypatch.setattr(compilation, "_time_pass", timed)
    images = torch.rand(5, 4)
    assert compile_if_faster(model, images, False) is compiled
    seconds[compiled] = 3.0
    assert compile_if_faster(model, images, True) is None
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(*pair) for pair in zip(model.parameters(), weights, strict=True))


def test_timing_leaves_no_trace_in_the_statistics_of_batch_norm(monkeypatch):
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)).train()
    monkeypatch.setattr(compilation, "compile_model", lambda model: model)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    compile_if_faster(model, torch.rand(5, 4), False)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    compilation._time_pass(model, torch.rand(5, 4), False)
    assert not torch.equal(model[1].running_mean, before["1.running_mean"])


# In a run


def test_without_compiler_a_run_says_so_once_and_goes_on(small, tmp_path, tools):
    tools()
    training, messages = small.start(tmp_path / "run", ON), []
    training.run(lambda progress: messages.append(progress.message))
    assert [message for message in messages if message] == ["torch.compile is left out: there is no C++ compiler"]
    assert training.run_directory.journal.events() == [{"event": "compile", "step": 0, "compiled": False}]
    eager = small.train(path=tmp_path / "eager")
    assert small.outcome(training) == small.outcome(eager)


@pytest.mark.parametrize(("wanted", "step"), [("on", 0), ("auto", 3), ("off", None)])
def test_when_a_run_compiles(small, doubled, monkeypatch, wanted, step):
    monkeypatch.setattr(loop, "MEASURED_STEPS", 3)
    training = small.train({"training.compile": wanted, "training.log_steps": 1})
    events = [] if step is None else [{"event": "compile", "step": step, "compiled": True}]
    assert training.run_directory.journal.events() == events
    assert (training.compute is training.state.model) == (wanted == "off")


def test_auto_compiles_only_when_it_pays(small, doubled, monkeypatch):
    monkeypatch.setattr(loop, "MEASURED_STEPS", 3)
    asked = []
    monkeypatch.setattr(compilation, "compiling_pays", lambda device, seconds_left: asked.append(seconds_left))
    training = small.train()
    (seconds_left,) = asked
    assert 0 < seconds_left < 60
    assert training.run_directory.journal.events() == [{"event": "compile", "step": 3, "compiled": False}]
    assert training.compute is training.state.model


def test_the_decision_is_journalled_before_it_counts(small, tmp_path, doubled, monkeypatch):
    training = small.start(tmp_path / "run", ON)

    def refuse(event, **facts):
        raise CheckpointError("the disk is full")

    monkeypatch.setattr(training.run_directory.journal, "write", refuse)
    with pytest.raises(CheckpointError, match="the disk is full"):
        training.run(small.silent)
    assert training.compute is training.state.model
    assert training.state.counters.step == 0


@pytest.mark.parametrize("wanted", ["on", "auto"])
@pytest.mark.parametrize("crash", [2, 4, 7, 8, 12])
def test_a_resumed_run_compiles_where_it_compiled_before(small, tmp_path, doubled, monkeypatch, wanted, crash):
    """Whether the last checkpoint lies before the decision, at it or after it; here every 5 steps, auto's at 7."""
    monkeypatch.setattr(loop, "MEASURED_STEPS", 7)
    settings = {"training.compile": wanted}
    expected = small.outcome(small.train(settings, path=tmp_path / "undisturbed"))
    assert (
        expected["state"] != small.outcome(small.train({"training.compile": "off"}, path=tmp_path / "eager"))["state"]
    )

    def report(progress):
        if progress.step == crash and progress.evaluation is None and progress.message is None:
            raise StopIteration

    with pytest.raises(StopIteration):
        small.start(tmp_path / "run", settings).run(report)
    if crash > 7:  # decided; from here on the clock would decide otherwise
        monkeypatch.setattr(compilation, "compiling_pays", lambda device, seconds_left: False)
    assert small.outcome(small.train(settings)) == expected


@pytest.mark.slow
@pytest.mark.skipif(not has_compiler(CPU), reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # what torch's own compiler does is not ours to mend
def test_a_compiled_run_is_resumed_exactly(small, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_COMPILE_THREADS", "1")
    monkeypatch.setattr(
        compilation, "compile_if_faster", lambda model, images, autocast: compilation.compile_model(model)
    )
    settings = ON | {"model.depth": 1, "training.optimizer": "muon"}
    training = small.train(settings, path=tmp_path / "undisturbed")
    assert training.compute is not training.state.model
    assert training.run_directory.journal.last("compile")["compiled"]
    for step in (3, 10):
        with pytest.raises(Interrupted):
            small.start(tmp_path / "run", settings).run(small.stop_after(step))
    assert small.outcome(small.train(settings)) == small.outcome(training)
    eager = small.train(settings | {"training.compile": "off"}, path=tmp_path / "eager")
    losses = [[line["loss"] for line in small.metrics(tmp_path / name)] for name in ("undisturbed", "eager")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert eager.compute is eager.state.model


@pytest.mark.slow
@pytest.mark.skipif(not has_compiler(CPU), reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
def test_a_real_comparison_ends_with_one_of_the_two(small, tmp_path):
    model = small.start(tmp_path / "run", {"model.depth": 1}).state.model
    images = torch.randint(0, 256, (8, 1, 8, 8), dtype=torch.uint8)
    compiled = compile_if_faster(model, images, False)
    assert all(parameter.grad is None for parameter in model.parameters())
    if compiled is not None:
        torch.testing.assert_close(compiled(images), model(images), rtol=1e-4, atol=1e-5)
