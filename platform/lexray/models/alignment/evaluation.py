"""How well towers retrieve sources that they were not trained on."""

import torch
from torch import Tensor, nn

from lexray.models.alignment.contrastive import symmetric_info_nce
from lexray.models.alignment.pairs import Pairs
from lexray.models.alignment.towers import Towers, join_members


@torch.no_grad()
def retrieval_metrics(towers: Towers, pairs: Pairs) -> dict[str, float]:
    """Loss, recall@10 and median rank, a source's X-ray vector being the mean of its detections'."""
    count = pairs.offsets.diff()
    owner = torch.repeat_interleave(torch.arange(len(pairs), device=count.device), count)
    xray, text = join_members(towers.xray(pairs.xray)), join_members(towers.text(pairs.text))
    mean = nn.functional.normalize(torch.zeros_like(text).index_add(0, owner, xray), dim=-1)
    ranks = torch.cat([own_rank(mean @ text.T), own_rank(text @ mean.T)]).double()
    return {
        "val/loss": float(symmetric_info_nce(mean, text, towers.log_scale)),
        "val/recall@10": float((ranks <= 10).double().mean()),
        "val/median_rank": float(ranks.median()),
    }


def own_rank(similarity: Tensor) -> Tensor:
    """Rank, from 1, that each row of similarity[N, N] gives its own column; ties count against it."""
    return (similarity >= similarity.diagonal()[:, None]).sum(1)
