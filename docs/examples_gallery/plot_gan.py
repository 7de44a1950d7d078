"""
Why does a GAN's generator stop learning?
=========================================

Because the discriminator wins, if the generator minimizes log(1 - D): that loss is flat where D is
sure. Its gradient is over 100 times smaller than that of -log D, which asks for the same
(Goodfellow et al. 2014).
"""

import tempfile

import matplotlib.pyplot as plt
import torch
from torch import nn
from torch.nn.functional import logsigmoid

import gradflow

losses = {
    "log(1 - D(G(z)))": lambda logit: logsigmoid(-logit).mean(),
    "-log D(G(z))": lambda logit: -logsigmoid(logit).mean(),
}
norms = []
for name, generator_loss in losses.items():
    torch.manual_seed(0)
    G = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 2))
    D = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))
    learn_g = torch.optim.SGD(G.parameters(), lr=1e-3)
    learn_d = torch.optim.Adam(D.parameters(), lr=2e-3)
    folder = tempfile.mkdtemp() + "/run"
    with gradflow.Tracer(G, folder, optimizer=learn_g) as tracer:
        for _ in range(150):
            real, z = torch.randn(128, 2) + 3, torch.randn(128, 8)
            learn_d.zero_grad()
            fake = G(z)
            loss = -logsigmoid(D(real)).mean() - logsigmoid(-D(fake.detach())).mean()
            loss.backward()
            learn_d.step()
            learn_g.zero_grad()
            generator_loss(D(fake)).backward()
            learn_g.step()
        tracer.end_epoch()
    rows = gradflow.open_run(folder).parameters.query("parameter == '2.weight'")
    norms.append(rows.gradient_norm[-20:].median())
    plt.semilogy(rows.step, rows.gradient_norm, label=f"generator minimizes {name}")
assert norms[1] > 100 * norms[0]
plt.xlabel("step (the discriminator learns faster)")
plt.ylabel("gradient norm of the generator")
plt.legend()
