"""Expectation values of circuits that do not fit the device, by circuit cutting."""
