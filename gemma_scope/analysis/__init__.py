"""Readings of one model: lens, direct attribution, explanations."""

from gemma_scope.analysis.probes import Probe as Probe
from gemma_scope.analysis.probes import ProbeOptions as ProbeOptions
from gemma_scope.analysis.probes import fit_probe as fit_probe
from gemma_scope.analysis.probes import fit_probes as fit_probes
