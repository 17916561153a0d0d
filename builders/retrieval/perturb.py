# PLACEHOLDER until the real module is written: overwrite me.
PERTURBATIONS = {"shift": 0, "brightness": 0}


def fields():
    return {}


def perturbed(m, s, way, seed):
    o = (m.shape[0] - s) // 2
    d = s * 20 // 256 if way == "shift" else 0
    return m[o + d : o + d + s, o : o + s]
