"""initbench: which weight init, activation and norm layer lets this net learn, and why?"""

__version__ = "0.1.0"
