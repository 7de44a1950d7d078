"""Residual additions of known architectures, compared with autograd on two copies of x.

Each case has a model, an input, and for every addition a function that runs the block with a copy
of x for the skip and one for the branch. The gradients at the copies must be those in the table.
"""

import copy
import gc
import json
from functools import partial

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F
from torchvision.models.convnext import CNBlock
from torchvision.models.vision_transformer import VisionTransformer

import gradflow

COLUMNS = {
    "skip_gradient_norm": lambda s, b: s.norm(),
    "branch_gradient_norm": lambda s, b: b.norm(),
    "gradient_norm": lambda s, b: (s + b).norm(),
    "skip_branch_cosine": lambda s, b: (s * b).sum() / (s.norm() * b.norm()),
    "skip_share": lambda s, b: (s * (s + b)).sum() / (s + b).square().sum(),
    "cancellation": lambda s, b: 1 - (s + b).norm() / (s.norm() + b.norm()),
}


def loss_of(output):
    """A loss that tells all outputs apart."""
    weights = torch.linspace(-1, 2, output.numel(), dtype=output.dtype).view_as(output)
    return (output.square() * weights).sum() + (output * weights.flip(0)).sum()


def record(model, folder, x, seed=0):
    with gradflow.Tracer(model, folder) as tracer:
        torch.manual_seed(seed)
        loss_of(model(x)).backward()
        tracer.step()
    return gradflow.open_run(folder)


def fork_by_hand(model, x, name, run_block, seed=0):
    """The gradients at two copies of x, the input of one addition in the module `name`.

    `run_block(block, given, fork)` runs the block on its input and calls `fork` on x.
    """
    twin = copy.deepcopy(model)
    block = twin.get_submodule(name)
    seen = {}

    def before(_, args):
        seen["given"], seen["random"] = args[0].detach().clone(), torch.get_rng_state()

    def after(_, __, output):
        # Blocks of earlier transformers return a tuple with the output first.
        first = output[0] if isinstance(output, tuple) else output
        first.register_hook(partial(seen.__setitem__, "gradient"))

    before_handle = block.register_forward_pre_hook(before)
    after_handle = block.register_forward_hook(after)
    torch.manual_seed(seed)
    loss_of(twin(x)).backward()
    before_handle.remove()
    after_handle.remove()
    leaves = []

    def fork(x):
        leaves.extend(x.detach().clone().requires_grad_() for _ in range(2))
        return leaves[0] * 1, leaves[1] * 1

    torch.set_rng_state(seen["random"])
    run_block(block, seen["given"], fork).backward(seen["gradient"])
    return leaves[0].grad, leaves[1].grad


def check(model, folder, x, cases):
    model = model.double().train()
    pristine = copy.deepcopy(model)
    run = record(model, folder, x)
    rows = run.junctions.set_index("layer")
    assert rows.index.is_unique
    for layer, (name, run_block) in cases.items():
        skip, branch = fork_by_hand(pristine, x, name, run_block)
        for column, formula in COLUMNS.items():
            expected = float(formula(skip, branch))
            assert rows.loc[layer, column] == pytest.approx(expected, rel=1e-8), (layer, column)
    assert (rows.residual_error < 1e-12).all()
    return run


def images(*shape):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def basic_block(block, x, fork):
    skip, branch = fork(x)
    out = block.bn2(block.conv2(block.relu(block.bn1(block.conv1(branch)))))
    return F.relu(out + (skip if block.downsample is None else block.downsample(skip)))


def test_torchvision_resnet(tmp_path):
    torch.manual_seed(0)
    names = [f"layer{stage}.{block}" for stage in (1, 2, 3, 4) for block in (0, 1)]
    cases = {name: (name, basic_block) for name in names}
    model = torchvision.models.resnet18(num_classes=4)
    run = check(model, tmp_path / "run", images(2, 3, 33, 33), cases)
    assert list(run.junctions.layer) == names
    kinds = run.junctions.set_index("layer").skip_type
    assert [name for name in names if kinds[name] == "projection"] == [
        "layer2.0",
        "layer3.0",
        "layer4.0",
    ]
    assert set(run.layers[run.layers.role == "projection"].layer) == {
        f"layer{stage}.0.downsample.{place}" for stage in (2, 3, 4) for place in (0, 1)
    }
    assert run.junctions.skip_variance.notna().all()
    assert run.junctions.branch_variance.notna().all()
    # Nothing but the block reads its input: g is all of dL/dx.
    assert list(run.junctions.input_gradient_norm) == pytest.approx(
        list(run.junctions.gradient_norm), rel=1e-12
    )
    assert run.description["residual_additions"]["found"] == 8


class PreActivation(nn.Module):
    """He et al. 2016: the projection, where there is one, reads the activated input."""

    def __init__(self, inputs, outputs, stride=1):
        super().__init__()
        self.bn1, self.bn2 = nn.BatchNorm2d(inputs), nn.BatchNorm2d(outputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride) if inputs != outputs else None

    def branch(self, x):
        return self.conv2(F.relu(self.bn2(self.conv1(x))))

    def forward(self, x):
        out = F.relu(self.bn1(x), inplace=True)
        skip = x if self.shortcut is None else self.shortcut(out)
        out = self.branch(out)
        out += skip
        return out


def pre_activation_identity(block, x, fork):
    skip, branch = fork(x)
    return skip + block.branch(F.relu(block.bn1(branch)))


def pre_activation_projection(block, x, fork):
    skip, branch = fork(F.relu(block.bn1(x)))
    return block.shortcut(skip) + block.branch(branch)


def test_pre_activation_resnet(tmp_path):
    torch.manual_seed(0)
    blocks = [PreActivation(4, 4), PreActivation(4, 6, 2), PreActivation(6, 6)]
    model = nn.Sequential(nn.Conv2d(3, 4, 3), *blocks, nn.BatchNorm2d(6), nn.ReLU())
    cases = {
        "1": ("1", pre_activation_identity),
        "2": ("2", pre_activation_projection),
        "3": ("3", pre_activation_identity),
    }
    run = check(model, tmp_path / "run", images(4, 3, 9, 9), cases)
    assert list(run.junctions.skip_type) == ["identity", "projection", "identity"]


def attention(block, x):
    y = block.ln_1(x)
    return block.self_attention(y, y, y, need_weights=False)[0]


def vit_first(block, x, fork):
    skip, branch = fork(x)
    x = skip + block.dropout(attention(block, branch))
    return x + block.mlp(block.ln_2(x))


def vit_second(block, x, fork):
    skip, branch = fork(x + block.dropout(attention(block, x)))
    return skip + block.mlp(block.ln_2(branch))


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_vision_transformer(tmp_path, dropout):
    torch.manual_seed(0)
    model = VisionTransformer(16, 8, 2, 2, 8, 16, dropout=dropout, num_classes=3)
    nn.init.normal_(model.heads.head.weight)  # zero by default, and all gradients with it
    cases = {}
    for index in (0, 1):
        name = f"encoder.layers.encoder_layer_{index}"
        cases |= {name: (name, vit_first), f"{name}+2": (name, vit_second)}
    run = check(model, tmp_path / "run", images(2, 3, 16, 16), cases)
    # The embedding of positions and the biases are no residual additions.
    assert list(run.junctions.layer) == list(cases)
    assert set(run.junctions.skip_type) == {"identity"}
    assert run.junctions.skip_variance.notna().all()


class GPTBlock(nn.Module):
    """Pre-norm, with causal attention (Radford et al. 2019)."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU("tanh"), nn.Linear(4 * width, width)
        )

    def attend(self, x):
        shape = (*x.shape[:2], self.heads, -1)
        q, k, v = (part.reshape(shape).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
        hidden = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
        out = scores.masked_fill(hidden, float("-inf")).softmax(-1) @ v
        return self.proj(out.transpose(1, 2).reshape(x.shape))

    def forward(self, x):
        x = x + self.attend(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class GPT(nn.Module):
    def __init__(self, width=8, layers=2, vocabulary=11):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(vocabulary, width), nn.Embedding(16, width)
        self.h = nn.ModuleList([GPTBlock(width, 2) for _ in range(layers)])
        self.ln_f = nn.LayerNorm(width)

    def forward(self, tokens):
        x = self.wte(tokens) + self.wpe(torch.arange(tokens.shape[1]))
        for block in self.h:
            x = block(x)
        return self.ln_f(x) @ self.wte.weight.T


def gpt_first(block, x, fork):
    skip, branch = fork(x)
    x = skip + block.attend(block.ln_1(branch))
    return x + block.mlp(block.ln_2(x))


def gpt_second(block, x, fork):
    skip, branch = fork(x + block.attend(block.ln_1(x)))
    return skip + block.mlp(block.ln_2(branch))


def test_gpt(tmp_path):
    torch.manual_seed(0)
    cases = {}
    for index in (0, 1):
        cases |= {f"h.{index}": (f"h.{index}", gpt_first)}
        cases |= {f"h.{index}+2": (f"h.{index}", gpt_second)}
    run = check(GPT(), tmp_path / "run", torch.randint(0, 11, (2, 5)), cases)
    assert list(run.junctions.layer) == list(cases)


def test_gpt2_of_transformers(tmp_path):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    configuration = transformers.GPT2Config(
        n_layer=2, n_head=2, n_embd=8, vocab_size=11, n_positions=8, bos_token_id=0, eos_token_id=0
    )

    def first(block, x, fork):
        skip, branch = fork(x)
        x = skip + block.attn(block.ln_1(branch))[0]
        return x + block.mlp(block.ln_2(x))

    def second(block, x, fork):
        skip, branch = fork(x + block.attn(block.ln_1(x))[0])
        return skip + block.mlp(block.ln_2(branch))

    class Logits(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = transformers.GPT2LMHeadModel(configuration)

        def forward(self, tokens):
            return self.model(input_ids=tokens, use_cache=False).logits

    cases = {}
    for index in (0, 1):
        name = f"model.transformer.h.{index}"
        cases |= {name: (name, first), f"{name}+2": (name, second)}
    run = check(Logits(), tmp_path / "run", torch.randint(0, 11, (2, 5)), cases)
    # GPT-2's GELU adds x and 0.04 x^3: nothing residual.
    assert list(run.junctions.layer) == list(cases)


def post_norm_first(layer, x, fork):
    skip, branch = fork(x)
    x = layer.norm1(skip + layer._sa_block(branch, None, None))
    return layer.norm2(x + layer._ff_block(x))


def post_norm_second(layer, x, fork):
    skip, branch = fork(layer.norm1(x + layer._sa_block(x, None, None)))
    return layer.norm2(skip + layer._ff_block(branch))


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_post_norm_transformer(tmp_path, dropout):
    torch.manual_seed(0)
    layers = [nn.TransformerEncoderLayer(8, 2, 16, dropout, batch_first=True) for _ in range(2)]
    cases = {}
    for name in ("1", "2"):
        cases |= {name: (name, post_norm_first), f"{name}+2": (name, post_norm_second)}
    model = nn.Sequential(nn.Linear(5, 8), *layers)
    run = check(model, tmp_path / "run", images(3, 4, 5), cases)
    assert list(run.junctions.layer) == list(cases)


def cn_block(block, x, fork):
    skip, branch = fork(x)
    return skip + block.stochastic_depth(block.layer_scale * block.block(branch))


@pytest.mark.parametrize("mode", ["row", "batch"])
def test_layer_scale_and_stochastic_depth_belong_to_the_branch(tmp_path, mode):
    torch.manual_seed(0)
    blocks = [CNBlock(4, layer_scale=0.5, stochastic_depth_prob=0.4) for _ in range(3)]
    for block in blocks:
        block.stochastic_depth.mode = mode
    model = nn.Sequential(nn.Conv2d(3, 4, 1), *blocks)
    seed = next(  # one at which not every branch is dropped
        seed for seed in range(9) if _kept(model, seed, mode)
    )
    model = model.double()
    pristine = copy.deepcopy(model)
    x = images(4, 3, 8, 8)
    rows = record(model, tmp_path / "run", x, seed).junctions.set_index("layer")
    assert list(rows.index) == ["1", "2", "3"]
    for name in rows.index:
        skip, branch = fork_by_hand(pristine, x, name, cn_block, seed)
        for column in ("skip_gradient_norm", "branch_gradient_norm", "gradient_norm", "skip_share"):
            expected = float(COLUMNS[column](skip, branch))
            assert rows.loc[name, column] == pytest.approx(expected, rel=1e-8), (name, column)
    assert (rows.residual_error < 1e-12).all()
    assert (rows.branch_gradient_norm > 0).any()


def _kept(model, seed, mode):
    torch.manual_seed(seed)
    size = 4 if mode == "row" else 1
    return sum(float(torch.empty(size).bernoulli_(0.6).sum()) > 0 for _ in range(3)) == 3


class Parallel(nn.Module):
    """x + f(h) + g(h) with h = norm(x), as in GPT-J and PaLM, summed in either order."""

    def __init__(self, first_to_the_skip):
        super().__init__()
        self.norm, self.f, self.g = nn.LayerNorm(6), nn.Linear(6, 6), nn.Linear(6, 6)
        self.first_to_the_skip = first_to_the_skip

    def forward(self, x):
        h = self.norm(x)
        f, g = self.f(h).tanh(), self.g(h).relu()
        return (x + f) + g if self.first_to_the_skip else f + g + x


@pytest.mark.parametrize("first_to_the_skip", [True, False])
def test_parallel_branches_make_one_addition(tmp_path, first_to_the_skip):
    def run_block(block, x, fork):
        skip, branch = fork(x)
        h = block.norm(branch)
        return skip + block.f(h).tanh() + block.g(h).relu()

    torch.manual_seed(0)
    blocks = [Parallel(first_to_the_skip) for _ in range(2)]
    cases = {"1": ("1", run_block), "2": ("2", run_block)}
    run = check(nn.Sequential(nn.Linear(3, 6), *blocks), tmp_path / "run", images(5, 3), cases)
    assert list(run.junctions.layer) == ["1", "2"]
    assert list(run.junctions.input_gradient_norm) == pytest.approx(
        list(run.junctions.gradient_norm), rel=1e-12
    )


class Nested(nn.Module):
    """z = x + u + h(u) with u = f(x): a residual addition at the end of a residual branch."""

    def __init__(self):
        super().__init__()
        self.f, self.h = nn.Linear(6, 6), nn.Linear(6, 6)

    def inner(self, x):
        u = self.f(x).tanh()
        return u + self.h(u).tanh()

    def forward(self, x):
        return x + self.inner(x)


def test_nested_additions_are_told_apart(tmp_path):
    def inner(block, x, fork):
        skip, branch = fork(block.f(x).tanh())
        return x + (skip + block.h(branch).tanh())

    def outer(block, x, fork):
        skip, branch = fork(x)
        return skip + block.inner(branch)

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 6), Nested(), Nested())
    cases = {}
    for name in ("1", "2"):
        cases |= {name: (name, inner), f"{name}+2": (name, outer)}
    run = check(model, tmp_path / "run", images(5, 3), cases)
    assert list(run.junctions.layer) == list(cases)


class Ladder(nn.Module):
    """A long additive skip over a stage that holds a residual block on the same input."""

    def __init__(self):
        super().__init__()
        self.down, self.up = nn.Conv2d(4, 8, 3, 2, 1), nn.ConvTranspose2d(8, 4, 2, 2)
        self.inside = nn.Conv2d(4, 4, 3, padding=1)
        self.across = nn.Conv2d(4, 4, 1)

    def near(self, x):
        return x + self.inside(x).relu()

    def forward(self, x):
        y = self.near(x)
        z = self.up(self.down(y).relu())
        # The skip of this sum starts where the skip of the first one did.
        return self.across(x) + z


def test_a_long_skip_leaves_the_gradient_of_a_shorter_one_its_own_part(tmp_path):
    def near(block, x, fork):
        skip, branch = fork(x)
        y = skip + block.inside(branch).relu()
        return block.across(x) + block.up(block.down(y).relu())

    def far(block, x, fork):
        skip, branch = fork(x)
        return block.across(skip) + block.up(block.down(block.near(branch)).relu())

    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), Ladder())
    cases = {"1": ("1", near), "1+2": ("1", far)}
    rows = check(model, tmp_path / "run", images(2, 3, 8, 8), cases).junctions.set_index("layer")
    assert list(rows.skip_type) == ["identity", "projection"]
    # x has three readers: of its gradient the near addition sees a part, the far one all.
    # Each is a sum of its own, and the order of adding may differ.
    both = rows.input_gradient_norm
    assert both["1"] == pytest.approx(both["1+2"], rel=1e-12)
    assert rows.loc["1+2", "gradient_norm"] == pytest.approx(rows.input_gradient_norm["1"])
    assert rows.loc["1", "gradient_norm"] != pytest.approx(rows.input_gradient_norm["1"], rel=1e-3)


def test_a_loss_beside_the_model_shows_as_a_residual_error(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 6), Nested()).double()
    kept = []
    model[0].register_forward_hook(lambda _, __, output: kept.append(output))
    with gradflow.Tracer(model, tmp_path / "run") as tracer:
        loss = loss_of(model(images(5, 3)))
        (loss + kept[0].square().sum()).backward()
        tracer.step()
    rows = gradflow.open_run(tmp_path / "run").junctions.set_index("layer")
    assert rows.residual_error["1"] < 1e-12
    assert rows.residual_error["1+2"] > 1e-3


def test_half_precision_and_cancellation(tmp_path):
    class Cancel(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(-1.0))

        def forward(self, x):
            return x + self.scale * x.float().to(x.dtype)

    model = nn.Sequential(nn.Linear(3, 6), Cancel(), nn.Linear(6, 2)).bfloat16()
    with gradflow.Tracer(model, tmp_path / "run") as tracer:
        model(torch.randn(4, 3).bfloat16()).sum().backward()
        tracer.step()
    row = gradflow.open_run(tmp_path / "run").junctions.iloc[0]
    assert row.cancellation == 1
    assert row.gradient_norm == 0
    assert row.skip_gradient_norm == row.branch_gradient_norm > 0
    assert row[["skip_share", "residual_error"]].isna().all()


def test_two_calls_of_a_block_and_its_two_additions_have_four_names(tmp_path):
    torch.manual_seed(0)
    block = Nested()
    model = nn.Sequential(nn.Linear(3, 6), block, nn.ReLU(), block).double()
    rows = record(model, tmp_path / "run", images(5, 3)).junctions
    assert list(rows.layer) == ["1", "1+2", "1#2", "1#2+2"]


def test_additions_of_the_model_itself_and_of_plain_modules_are_named(tmp_path):
    class Inner(nn.Sequential):
        def forward(self, x):
            return x + super().forward(x)

    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(6, 6))

        def forward(self, x):
            return x + (x @ self.weight).tanh()

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.a, self.b = nn.Linear(3, 6), Inner(nn.Linear(6, 6), nn.ReLU()), Own()
            self.c = nn.Linear(6, 6)

        def forward(self, x):
            x = self.b(self.a(self.stem(x)))
            return {"logits": [x + self.c(x)], "none": None}

    torch.manual_seed(0)
    model = Model()
    with gradflow.Tracer(model, tmp_path / "run") as tracer:
        model(torch.randn(4, 3))["logits"][0].square().sum().backward()
        tracer.step()
    run = gradflow.open_run(tmp_path / "run")
    assert list(run.junctions.layer) == ["a", "b", "(model)"]


def test_parts_of_a_model_called_one_by_one_are_all_seen(tmp_path):
    torch.manual_seed(0)
    model = nn.ModuleDict({"encoder": Nested(), "decoder": Nested(), "stem": nn.Linear(3, 6)})
    with gradflow.Tracer(model, tmp_path / "run") as tracer:
        x = model["stem"](torch.randn(4, 3))
        model["decoder"](model["encoder"](x)).square().sum().backward()
        tracer.step()
    run = gradflow.open_run(tmp_path / "run")
    assert sorted(run.junctions.layer) == ["decoder", "decoder+2", "encoder", "encoder+2"]
    assert (run.junctions.residual_error < 1e-5).all()


@pytest.mark.parametrize("reentrant", [True, False])
def test_activation_checkpointing_changes_nothing_but_the_memory(tmp_path, reentrant):
    class Checkpointed(nn.Sequential):
        def forward(self, x):
            x = self[0](x)
            for block in self[1:]:
                x = torch.utils.checkpoint.checkpoint(block, x, use_reentrant=reentrant)
            return x

    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(3, 6), Nested(), Nested()).double()
    saving = Checkpointed(*copy.deepcopy(plain))
    expected = record(plain, tmp_path / "plain", images(5, 3)).junctions.set_index("layer")
    run = record(saving, tmp_path / "saving", images(5, 3))
    rows = run.junctions.set_index("layer")
    # The older way has no graph but in the backward pass, block by block.
    assert run.description["residual_additions"]["passes"] == (3 if reentrant else 1)
    assert set(rows.index) == set(expected.index)
    for column in COLUMNS:
        for layer in rows.index:
            value = expected.loc[layer, column]
            assert rows.loc[layer, column] == pytest.approx(value, rel=1e-10), (layer, column)


def test_recurrent_layers_have_no_residual_additions_but_may_have_one_around_them(tmp_path):
    class Around(nn.Module):
        def __init__(self):
            super().__init__()
            self.gru = nn.GRU(6, 6, batch_first=True)

        def forward(self, x):
            return x + self.gru(x)[0]

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 6), Around()).double()
    rows = record(model, tmp_path / "run", images(2, 4, 3)).junctions
    assert list(rows.layer) == ["1"]
    assert rows.residual_error[0] < 1e-12


def test_additions_are_recorded_under_autocast(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 6), Nested(), Nested())
    with gradflow.Tracer(model, tmp_path / "run") as tracer:
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(torch.randn(5, 3)).float().square().sum()
        loss.backward()
        tracer.step()
    rows = gradflow.open_run(tmp_path / "run").junctions
    assert list(rows.layer) == ["1", "1+2", "2", "2+2"]
    # The gradients themselves are rounded to 8 bits when they are summed.
    assert (rows.residual_error < 1e-2).all()


def test_no_node_and_no_tensor_is_held_after_the_step(tmp_path):
    class Marked(torch.autograd.Function):
        alive = 0

        @staticmethod
        def forward(ctx, x):
            Marked.alive += 1
            ctx.mark = Mark()
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient

    class Mark:
        def __del__(self):
            Marked.alive -= 1

    class Block(Nested):
        def forward(self, x):
            return super().forward(Marked.apply(x))

    model = nn.Sequential(nn.Linear(3, 6), Block(), Block())
    with gradflow.Tracer(model, tmp_path / "run") as tracer:
        for _ in range(3):
            model(torch.randn(5, 3)).sum().backward()
            tracer.step()
            gc.collect()
            assert Marked.alive == 0


def test_a_model_that_concatenates_says_so(tmp_path):
    block = torchvision.models.densenet._DenseBlock(2, 4, 2, 2, 0.0, False)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), block)
    with gradflow.Tracer(model, tmp_path / "run") as tracer:
        model(torch.randn(2, 3, 8, 8)).sum().backward()
        tracer.step()
    said = json.loads((tmp_path / "run" / "run.json").read_text())["residual_additions"]
    assert said.pop("sentence").startswith("none found; 3 concatenations; looked for x + f(x)")
    assert said == {
        "found": 0,
        "passes": 1,
        "concatenations": 3,
        "other_sums": 0,
        "other_changes_of_views": 0,
    }
    assert gradflow.open_run(tmp_path / "run").junctions.empty
