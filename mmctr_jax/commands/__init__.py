"""The subcommands of `mmctr`, one module each: `configure(parser)` and `run(args)`."""
