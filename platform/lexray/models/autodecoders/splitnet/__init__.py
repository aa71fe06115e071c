"""`splitnet`: an encoder–decoder that predicts photons held out from the rest. It needs no fit."""
