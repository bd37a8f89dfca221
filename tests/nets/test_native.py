from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch
from torch import nn

from quickstudy.nets import Moments, conv4, native, normalised_by
from quickstudy.nets.fused import Block
from quickstudy.nets.native import Native


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder, and no kernels loaded."""
    monkeypatch.setenv("QUICKSTUDY_CACHE", str(tmp_path))
    for cached in (native._loaded, native._path, native._compiler):
        cached.cache_clear()
    yield tmp_path
    for cached in (native._loaded, native._path, native._compiler):
        cached.cache_clear()


def test_nets_use_them_only_where_they_are_wanted_allowed_and_fit(library: Native) -> None:
    kind = next(k for k, v in native.REALS.items() if native._loaded(k) is library)
    x = torch.zeros(1, dtype=kind)
    assert native.native(x) is None
    with native.kernels():
        assert native.native(x) is library
        assert native.native(x, x.half()) is None
        assert native.native(x.to("meta")) is None
        with native.allowing(False):
            assert native.native(x) is None
            assert not native.build()
        with torch.autocast("cpu", torch.bfloat16):
            assert native.native(x) is None


@pytest.mark.parametrize("channels", [3, 8])
@pytest.mark.parametrize(("size", "blocks"), [(28, 4), (21, 2), (8, 3)])
def test_conv4_is_the_same_function(channels: int, size: int, blocks: int, library: Native) -> None:
    kind = next(k for k in native.REALS if native._loaded(k) is library)
    net = conv4(channels, in_channels=2, size=size, blocks=blocks).to(kind)
    for block in list(net)[:-1]:
        torch.nn.init.normal_(block.norm.weight)
    x = torch.rand(5, 2, size, size, dtype=kind)
    wanted = net(x)
    with native.kernels():
        torch.testing.assert_close(net(x), wanted, rtol=1e-4, atol=1e-4)
        assert net.eval()(x[:0]).shape == (0, net.features)


def test_a_library_is_built_once_and_found_again(elsewhere: Path, capfd: pytest.CaptureFixture[str]) -> None:
    if native._compiler() is None:
        pytest.skip("no C compiler")
    said: list[str] = []
    assert not native.built()
    assert native.build(said.append)
    assert native.built()
    assert native.build(said.append)
    assert len(said) == 1
    assert "once on this machine" in said[0]
    (made,) = (elsewhere / "kernels").iterdir()
    before = made.stat().st_mtime_ns
    native._loaded.cache_clear()
    assert native.built()
    assert native.build(said.append)
    assert (made.stat().st_mtime_ns, len(said)) == (before, 1)


def test_without_a_compiler_that_is_said_and_torch_is_used(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(elsewhere))
    monkeypatch.delenv("CC", raising=False)
    said: list[str] = []
    assert not native.build(said.append)
    assert "no C compiler (cc, gcc, clang) is here" in said[0]
    with native.kernels():
        assert conv4(2, size=16)(torch.zeros(1, 1, 16, 16)).shape == (1, 2)


@pytest.mark.parametrize("broken", ["#!/bin/sh\nexit 1\n", '#!/bin/sh\ntouch "$@" 2>/dev/null\nexit 0\n'])
def test_a_compiler_that_fails_leaves_nothing(
    broken: str, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = elsewhere / "cc"
    compiler.write_text(broken)
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", str(compiler))
    said: list[str] = []
    assert not native.build(said.append)
    assert "could not build" in said[0]
    assert list((elsewhere / "kernels").iterdir()) == []


def test_they_can_be_turned_off(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUICKSTUDY_KERNELS", "torch")
    assert not native.build()
    assert not (elsewhere / "kernels").exists()


def test_threads_do_not_share_their_work_space(library: Native) -> None:
    """Convolutions of several sizes at once, each as it is alone."""
    kind = next(k for k in native.REALS if native._loaded(k) is library)
    sizes = [(1, 3, 9, 4), (6, 2, 5, 7), (4, 8, 14, 1), (3, 3, 4, 30)]
    xs = [torch.randn(i, s, s, b, dtype=kind) for i, _, s, b in sizes]
    ws = [torch.randn(o, i, 3, 3, dtype=kind) for i, o, *_ in sizes]

    def run(case: int) -> torch.Tensor:
        x, w = xs[case], ws[case]
        ones = torch.ones(len(w), dtype=kind)
        return Block.apply(library, x, w, ones, ones, 0.1, False)[0]

    alone, differing = [run(c) for c in range(4)], []

    def many(first: int) -> None:
        for i in range(200):
            case = (first + i) % 4
            if not torch.equal(run(case), alone[case]):
                differing.append(case)

    workers = [threading.Thread(target=many, args=(first,)) for first in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert differing == []


def test_a_damaged_library_is_built_anew(elsewhere: Path) -> None:
    if native._compiler() is None:
        pytest.skip("no C compiler")
    path = native._path(torch.float32)
    assert path is not None
    path.parent.mkdir(parents=True)
    path.write_bytes(b"no library")
    assert not native.built()
    assert native.build()
    assert native.built()


def test_kernels_are_not_taken_up_half_way(elsewhere: Path) -> None:
    if native._compiler() is None:
        pytest.skip("no C compiler")
    with native.settled(native.LONG - 1) as kernels:
        assert kernels == "torch"
        assert not native.build()
    with native.settled(native.LONG, "torch") as kernels:
        assert kernels == "torch"
    with native.settled(native.LONG) as kernels:
        assert kernels == "native"
        assert native.built()
    for begun_with, wanted in ((None, "native"), ("native", "native"), ("torch", "torch")):  # they are there
        with native.settled(1, begun_with) as kernels:
            assert kernels == wanted
            assert native.built() == (wanted == "native")
    said: list[str] = []
    with native.allowing(False), native.settled(1, "native", said.append) as kernels:
        assert kernels == "torch"
    assert said == ["begun with native kernels, this run goes on with torch's: not bit for bit"]


def test_a_net_that_was_changed_or_pictures_that_do_not_fit_are_torchs(library: Native) -> None:
    kind = next(k for k in native.REALS if native._loaded(k) is library)
    x = torch.rand(3, 1, 16, 16, dtype=kind)
    longer = conv4(2, size=16).to(kind).append(nn.Threshold(10.0, 7.0))
    seen: list[torch.Size] = []
    hooked = conv4(2, size=16).to(kind)
    hooked[1].register_forward_hook(lambda module, args, output: seen.append(output.shape))
    with native.kernels():
        assert (longer(x) == 7).all()
        hooked(x)
        assert seen == [(3, 2, 4, 4)]
        with pytest.raises(RuntimeError, match=r"expected input.* to have 3 channels, but got 1"):
            conv4(2, in_channels=3, size=16).to(kind)(x)
        with pytest.raises(RuntimeError, match=r"[Oo]utput size is too small"):
            conv4(2, size=16).to(kind)(x[:, :, :8, :8])
        mixed = conv4(2, size=16).to(kind)
        mixed[0].norm.to(torch.float16)
        assert native.native(x, *mixed.parameters()) is None


def test_a_map_sees_them_too(library: Native) -> None:
    kind = next(k for k in native.REALS if native._loaded(k) is library)
    net, x = conv4(2, size=16).to(kind), torch.rand(3, 2, 1, 16, 16, dtype=kind)
    wanted = torch.stack([net(one) for one in x])  # by torch's kernels
    with native.kernels():
        torch.testing.assert_close(torch.func.vmap(net)(x), wanted, rtol=1e-4, atol=1e-4)


def test_where_nothing_is_computed_or_they_have_no_rule_it_is_torch(kernels: Native) -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    x = torch.rand(3, dtype=torch.double)
    with native.kernels():
        assert native.native(x) is kernels
        with torch.autograd.forward_ad.dual_level():
            assert native.native(x) is None
        with FakeTensorMode() as fake:
            assert native.native(fake.from_tensor(x)) is None
        with torch.autocast("cpu", torch.bfloat16):
            assert native.native(x) is None
            assert not native.serve(conv4(2).double())
    assert native.serve(conv4(2).double())
    assert not native.serve(conv4(2, norm="group").double())
    assert not native.serve(nn.Linear(1, 1).double())
    with native.allowing(False):
        assert not native.serve(conv4(2).double())


def test_torchs_threads_make_room(kernels: Native) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        for net, inside in ((conv4(2).double(), 1), (nn.Linear(1, 1).double(), 3)):
            with native.all_processors(net), native.all_processors(net):
                assert torch.get_num_threads() == inside
                assert (native._threads.get() or torch.get_num_threads()) == 3
            assert torch.get_num_threads() == 3
            assert native._threads.get() == 0
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_what_is_not_a_number_stays_so(wrong: float, library: Native) -> None:
    kind = next(k for k in native.REALS if native._loaded(k) is library)
    net, x = conv4(2, size=16).to(kind), torch.rand(3, 1, 16, 16, dtype=kind)
    x[1, 0, 5, 5] = wrong
    with native.kernels(), normalised_by(Moments(fused=True)):
        assert net(x).isnan().all()


def test_a_folder_that_cannot_be_written_to_costs_nothing_but_speed(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if native._compiler() is None:
        pytest.skip("no C compiler")
    (elsewhere / "kernels").write_text("a file in the way")
    said: list[str] = []
    assert not native.build(said.append)
    assert not native.build(said.append)
    assert len(said) == 1
    assert "cannot be kept in" in said[0]
