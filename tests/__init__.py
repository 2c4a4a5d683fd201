"""The tests: unit, contract, integration, gpu. Each has the promise it keeps as its docstring."""
