"""GANs: what their losses and distances are by hand, how large they are, and that a stopped duel goes on as if it had
not been."""

import hashlib
import math
from pathlib import Path

import pytest
import torch
from torch import nn

from lab.datasets import Images, load
from lab.datasets.images import statistics
from lab.experiments.beyond_classification import generation
from lab.experiments.optimizers import gan as ggan
from lab.models.gan import GAN, Discriminator, Generator
from lab.training import Stopped
from lab.training import scores as fidelity
from lab.training.gan_duel import Duel, critic_loss, generator_loss
from lab.training.gan_generated import Generation, sheet
from lab.utils.errors import LabError
from principled.relax import Relaxed


def parameters(net):
    return sum(p.numel() for p in net.parameters())


def test_the_networks_have_the_sizes_that_their_layers_add_up_to():
    # transposed convolutions of 4x4: 100-256-128-64-3; two numbers a channel of batch norm
    assert parameters(Generator()) == 16 * (100 * 256 + 256 * 128 + 128 * 64 + 64 * 3) + 2 * (256 + 128 + 64)
    assert parameters(Discriminator()) == 16 * (3 * 64 + 64 * 128 + 128 * 256 + 256) + 2 * (128 + 256)
    net = GAN(latent=10, width=4)
    images = net(torch.randn(5, 10)).detach()
    assert images.shape == (5, 3, 32, 32)
    assert float(images.abs().max()) <= 1
    assert net.discriminator(images).shape == (5,)


def test_losses_by_hand():
    real, fake = torch.tensor([2.0, 0.0]), torch.tensor([-3.0, 0.5])
    assert float(critic_loss(real, fake, "hinge")) == (0 + 1) / 2 + (0 + 1.5) / 2
    assert float(generator_loss(fake, "hinge")) == (3 - 0.5) / 2
    by_hand = [-math.log(1 / (1 + math.exp(-v))) for v in (2.0, 0.0, 3.0, -0.5)]  # real as real, fake as fake
    assert float(critic_loss(real, fake, "cross-entropy")) == pytest.approx(sum(by_hand) / 2, rel=1e-6)
    assert float(generator_loss(torch.zeros(3), "cross-entropy")) == pytest.approx(math.log(2))
    for loss in (lambda: critic_loss(real, fake, "wasserstein"), lambda: generator_loss(fake, "wasserstein")):
        with pytest.raises(LabError, match="unknown loss 'wasserstein' of a GAN: choose one of cross-entropy, hinge"):
            loss()


def with_moments(mean, std, n=2000):
    """Features (n, 2) with exactly this mean and these standard deviations, uncorrelated."""
    x = torch.randn(n, 2, dtype=torch.float64)
    x = x - x.mean(0)
    x = x @ torch.linalg.inv(torch.linalg.cholesky(x.T @ x / (n - 1))).T
    return x * torch.tensor(std, dtype=torch.float64) + torch.tensor(mean, dtype=torch.float64)


def test_the_frechet_distance_of_two_known_gaussians():
    # |(3, 0)|^2 + (1 - 2)^2 + (5 - 1)^2
    one, other = with_moments((0, 1), (1, 5)), with_moments((3, 1), (2, 1))
    assert fidelity.frechet(one, other) == pytest.approx(9 + 1 + 16, abs=1e-6)
    assert fidelity.frechet(one, one) == pytest.approx(0, abs=1e-6)


def test_the_inception_score_of_known_predictions():
    sure = 50 * torch.eye(10).repeat(40, 1)  # certain, and all ten classes alike: close to 10
    assert 9 < fidelity.inception_score(sure) <= 10
    assert fidelity.inception_score(torch.zeros(100, 10)) == pytest.approx(1)  # says nothing


@pytest.mark.parametrize(
    ("one", "other", "message"),
    [
        (torch.zeros(1, 2), torch.zeros(5, 2), r"N of 2 or more, not \(1, 2\)"),
        (torch.zeros(5, 3), torch.zeros(5, 2), "two sets of features"),
        (torch.full((5, 2), math.nan), torch.zeros(5, 2), "NaN or infinite"),
    ],
)
def test_distances_refuse_what_is_none(one, other, message):
    with pytest.raises(LabError, match=message):
        fidelity.frechet(one, other)
    with pytest.raises(LabError, match="an Inception Score needs logits"):
        fidelity.inception_score(torch.zeros(3, 10))


def test_real_images_are_nearer_to_real_images_than_noise_is():
    network = fidelity.resnet_features(torch.device("cpu"))
    real, test = (load("cifar10-mini", split).images[:300] for split in ("train", "test"))
    noise = torch.randint(0, 256, (300, 3, 32, 32), dtype=torch.uint8)
    near, far = (
        fidelity.frechet(fidelity.features(x, network), fidelity.features(test, network)) for x in (real, noise)
    )
    assert far > 3 * near > 0


def test_without_the_inception_network_one_line_says_what_to_bring(tmp_path, monkeypatch):
    with pytest.raises(
        LabError, match=r"no Inception network in .*inception, without which there is no FID: put torch-fidelity's"
    ):
        fidelity.inception_file(tmp_path)
    (tmp_path / "inception").mkdir()
    (tmp_path / "inception" / fidelity.SCRIPT).write_bytes(b"something else")
    with pytest.raises(LabError, match=r"default_1.pt is not the published network \(SHA-256 differs\)"):
        fidelity.inception_file(tmp_path)
    monkeypatch.setenv("LAB_DATA", str(tmp_path))
    with pytest.raises(LabError):
        ggan.experiment.check(ggan.run("paper", "Adam", 2e-4, 1e-6))


def test_features_through_a_network_that_the_user_brings(tmp_path, monkeypatch):
    class Pool(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean(dim=(2, 3))

    path = tmp_path / "inception" / fidelity.SCRIPT
    path.parent.mkdir()
    torch.jit.script(Pool()).save(str(path))
    monkeypatch.setattr(fidelity, "SCRIPT_SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    images = torch.stack([torch.full((3, 32, 32), value, dtype=torch.uint8) for value in (0, 128, 255)])
    pooled, logits = fidelity.inception_features(images, torch.device("cpu"), tmp_path)
    assert logits is None
    torch.testing.assert_close(pooled, torch.tensor([-1.0, 0.0, 127 / 128])[:, None].expand(3, 3))


def tiny(count=24):
    images = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8)
    mean, std = statistics(images)
    return Images(images, torch.zeros(count, dtype=torch.int64), ("one",), mean, std, "tiny", "0")


TRAINING = generation.PROTOCOL["quick"]["training"] | {
    "epochs": 2,
    "finetune_epochs": 1,
    "batch_size": 4,
    "samples": 8,
    "critic": 2,
}


def duel(method, path, stop=lambda: False, training=TRAINING):
    torch.manual_seed(3)
    task = Generation((tiny(), tiny()), training, latent=6)
    torch.manual_seed(4)
    return Duel("run", GAN(6, 4), method, training, task, seed=5, checkpoint=path, stop=stop)


SMOL = generation.run("quick", "smol", **{"lambda": 1e-4, "zero": True})
METHODS = {
    "smol": lambda: generation.GeneratorMethod(SMOL.config["method"], 0),
    "dense": lambda: generation.GeneratorMethod(generation.run("quick", "dense").config["method"], 0),
    "AvaGrad": lambda: ggan.Optimized(ggan.run("quick", "AvaGrad", 1e-2, 1e-6).config["method"]),
}  # fmt: skip


@pytest.mark.parametrize("name", ["smol", "AvaGrad"])
@pytest.mark.parametrize("after", [1, 4, 7])  # in the first epoch, in the second, while fine-tuning
def test_a_stopped_duel_ends_as_an_undisturbed_one(name, after, tmp_path):
    training = TRAINING | ({"loss": "hinge", "lr": 1.0, "finetune_lr": 1.0} if name == "AvaGrad" else {})
    whole = duel(METHODS[name](), None, training=training)
    whole.run()
    steps = iter(range(100))
    with pytest.raises(Stopped):
        # asked after each step but an epoch's last: two of three
        duel(METHODS[name](), tmp_path / "c.pt", lambda: next(steps) == after - after // 3 - 1, training).run()
    again = duel(METHODS[name](), tmp_path / "c.pt", training=training)
    assert again.epoch * again.steps + again.step == after
    again.run()
    assert again.curve == whole.curve
    for key, value in whole.net.state_dict().items():
        assert torch.equal(value, again.net.state_dict()[key]), key


def test_smol_quantises_the_generator_and_leaves_the_discriminator_alone():
    trainer = duel(METHODS["smol"](), None)
    trainer.run()
    generator = trainer.net.generator
    assert isinstance(generator, Relaxed)
    precision = generator.relaxations[0].precision()
    assert set(precision) == {"blocks.0.0.weight", "blocks.1.0.weight", "blocks.2.0.weight", "last.weight"}
    assert not any("relaxations" in name for name, _ in trainer.net.discriminator.named_parameters())
    plain, weight = generator.harden(), precision["last.weight"]
    assert bool((plain.last.weight[weight == 0] == 0).all())


def test_the_discriminator_learns_critic_times_a_step():
    trainer = duel(METHODS["dense"](), None)
    counts = [0, 0]
    for place, optimizer in enumerate(trainer.optimizers):
        optimizer.register_step_post_hook(lambda *_, place=place: counts.__setitem__(place, counts[place] + 1))
    for _ in trainer.steps_of_epoch():
        pass
    assert counts == [6, 3]


def test_the_ggan_column_is_declared_as_6_3_3_says():
    adam = [r for r in ggan.runs("paper") if r.config["method"]["name"] == "Adam"]
    assert len(adam) == len(ggan.EPSILONS) * len(ggan.ALPHAS) == 27
    assert (adam[0].config["method"]["alpha"], adam[0].config["method"]["epsilon"]) == (2e-4, 1e-6)
    hinge = adam[0].config["training"]
    assert hinge["epochs"] * (50_000 // (hinge["batch_size"] * hinge["critic"])) == pytest.approx(60_000, rel=2e-3)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: ggan.run("quick", "Lion", 1e-3, 1e-8), "unknown optimizer 'Lion'"),
        (lambda: ggan.run("quick", "Adam", 0.0, 1e-8), "alpha must be a positive number, not 0.0"),
        (lambda: Generation((tiny(3), tiny(3)), TRAINING), "tiny has 3 images, fewer than 2 batches of 4"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(wrong, message):
    with pytest.raises(LabError, match=message) as caught:
        wrong()
    assert "\n" not in str(caught.value)


def test_a_sheet_is_a_picture_of_the_images(tmp_path: Path):
    import base64
    import io

    from PIL import Image

    images = torch.zeros(6, 3, 32, 32, dtype=torch.uint8)
    images[1, 0] = 255
    picture = Image.open(io.BytesIO(base64.b64decode(sheet(images, 3))))
    assert picture.size == (96, 64)
    assert picture.convert("RGB").getpixel((48, 16))[0] > 200 > 60 > picture.convert("RGB").getpixel((16, 16))[0]
