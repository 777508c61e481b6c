"""Devices and processes: where arrays live, how processes join, where compiled programs are kept."""
