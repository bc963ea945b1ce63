"""The plain arithmetic of the ancestor and the arrays give the same integers."""

import numpy as np
from ancestor_rescore import SMALL_KS, Entry, topk_errors
from randomlists import COMPILED, random_lists

from w2ltune.scoring.kernels import Batch

pytestmark = COMPILED


def test_the_same_errors_at_each_k() -> None:
    rng = np.random.default_rng(0)
    for coarse in (False, True):
        nbest = random_lists(rng, 30, 60, 4, coarse=coarse)
        dump: dict[str, list[Entry]] = {}
        for utterance, row in enumerate(nbest.offsets[:-1].tolist()):
            dump[str(utterance)] = [
                Entry(
                    decoder_score=-float(number),
                    am_score=am,
                    tr_score=tr,
                    convlm_score=convlm,
                    length=length,
                    wer=100 * int(nbest.errors[number]) / 6,
                )
                for number in range(row, int(nbest.offsets[utterance + 1]))
                for am, tr, convlm, length in [nbest.features[number].tolist()]
            ]
        lengths = dict.fromkeys(dump, 6)
        for tr, convlm, length in [(0.5, -0.25, 1.0), (0.0, 0.0, 0.0), (2.0, 1.0, -1.0)]:
            weights = {"tr": tr, "convlm": convlm, "len": length}
            found = Batch(nbest).errors_by_depth(
                [1, tr, convlm, length], SMALL_KS, first_of_equals=True
            )
            errors, oracle = topk_errors(dump, lengths, weights)
            assert errors == found[0].tolist()
            assert oracle == np.minimum.reduceat(nbest.errors, nbest.offsets[:-1]).sum()
