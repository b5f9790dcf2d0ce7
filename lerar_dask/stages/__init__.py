"""The work, one file per stage: `plan` lists tasks, a task does one unit.

A task gets small values, opens the store itself, writes only what it owns, may run twice with the same result. Stages
import no other stage: what they share goes through the store or a kernel.
"""
