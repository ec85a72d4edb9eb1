"""lava-dl's side of `bench_lava_dl.py`, which starts it under a Python that has lava-dl."""

from workload import work

NEURON = {"threshold": 1.25, "current_decay": 1, "voltage_decay": 0.03, "tau_grad": 0.1, "scale_grad": 1}
"""As in specs/networks/mnist-dense.yaml."""


class Side:
    """The tutorial's network, by lava-dl's bootstrap blocks: time last, one step of time in ANN mode."""

    def __init__(self, request):
        import lava.lib.dl.bootstrap as bootstrap
        import torch

        blocks = bootstrap.block.cuba
        weights = {"weight_norm": True, "weight_scale": 2}
        self.modes, self.steps = bootstrap.Mode, request["time_steps"]
        self.blocks = torch.nn.ModuleList(
            [
                blocks.Input(NEURON, weight=1, bias=0),
                blocks.Dense(NEURON, 784, 512, **weights),
                blocks.Dense(NEURON, 512, 512, **weights),
                blocks.Affine(NEURON, 512, 10, **weights),
            ]
        )
        self.parameters, self.train = self.blocks.parameters, self.blocks.train

    def logits(self, images, mode):
        mode = self.modes[mode.upper()]
        steps = self.steps if mode in (self.modes.SAMPLE, self.modes.SNN) else 1
        x = ((images - 0.5) / 0.5).unsqueeze(-1).repeat(1, 1, steps)  # [N, 784, T]
        for block in self.blocks:
            x = block(x, mode=mode)
        return x.mean(-1).flatten(1)  # [N, 10, 1, 1, T] -> [N, 10]

    def engines(self):
        self.blocks.eval()
        return {"float": lambda images: self.logits(images, "snn")}


if __name__ == "__main__":
    work(Side)
