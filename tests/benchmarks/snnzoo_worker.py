"""snnzoo's side of `bench_lava_dl.py`, which starts it."""

from workload import work

from bootstrap_core import IntegerNetwork, Mode, build_network
from specs import load_spec


class Side:
    """The tutorial's network, by snnzoo."""

    def __init__(self, request):
        self.network = build_network(load_spec("mnist-dense"), seed=request["seed"])
        self.steps = request["time_steps"]
        self.parameters, self.train = self.network.parameters, self.network.train

    def logits(self, images, mode):
        return self.network(images, Mode(mode), time_steps=self.steps)

    def engines(self):
        network, integer = self.network.eval(), IntegerNetwork(self.network)
        return {
            "float": lambda images: network(images, Mode.SNN, time_steps=self.steps),
            "integer": lambda images: integer(images, time_steps=self.steps),
        }


if __name__ == "__main__":
    work(Side)
