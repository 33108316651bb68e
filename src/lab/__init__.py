"""What the experiments need: models, data, training, recorded runs, figures. Imports ``principled``, never the other
way round.
"""
