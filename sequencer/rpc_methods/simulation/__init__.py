"""eth_simulateV1: whole blocks of unsigned calls on pretended states."""

from sequencer.rpc_methods.simulation.methods import SimulationMethods

__all__ = ["SimulationMethods"]
