"""Tests of programs that use swapstore: planned faults, a simulated store, and the contract of drivers."""

from swapstore.testing.contract import ComparingContract, DriverContract, PlainContract, WaitingContract
from swapstore.testing.faults import Crash, Fault, FaultyDriver, Kind, every_fault, failing_at, faulty
from swapstore.testing.simulated import Keyspace, SimulatedStore, VirtualClock

__all__ = [
    "ComparingContract",
    "Crash",
    "DriverContract",
    "Fault",
    "FaultyDriver",
    "Keyspace",
    "Kind",
    "PlainContract",
    "SimulatedStore",
    "VirtualClock",
    "WaitingContract",
    "every_fault",
    "failing_at",
    "faulty",
]
