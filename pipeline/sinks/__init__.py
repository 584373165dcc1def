"""Where rows, silences and dead letters are written."""
