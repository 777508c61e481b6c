"""Devices and processes: where arrays live, how processes join, where compiled programs and freed memory are kept."""
