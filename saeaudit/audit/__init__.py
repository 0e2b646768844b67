"""One module per subcommand: generators of typed records that know no terminal and no file."""
