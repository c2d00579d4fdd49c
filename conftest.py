"""Root of the test suite: imports the real `shared` package before any tests folder can shadow it."""

pytest_plugins = ["shared.testing.fixtures", "shared.testing.examples"]
