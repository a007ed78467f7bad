"""The protocol: everything that must be the same in both frameworks; nothing here imports a framework."""

from tandem.protocol.accumulation import Passes
from tandem.protocol.backbones import find_backbone
from tandem.protocol.regimes import Phase, phases_of, split_blocks
from tandem.protocol.schedule import averaging_rates
from tandem.protocol.settings import Settings
