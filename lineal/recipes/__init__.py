"""One paper, one file: each recipe holds its PAPER facts, its defaults and its loop (or a preset of another's loop)."""

RECIPES = {
    "demo": "lineal.recipes.demo",
    "transformer": "lineal.recipes.transformer",
    "ulmfit": "lineal.recipes.ulmfit",
    "elmo": "lineal.recipes.elmo",
    "tagger": "lineal.recipes.tagger",
    "gpt": "lineal.recipes.gpt",
    "bert": "lineal.recipes.bert",
    "finetune": "lineal.recipes.finetune",
    "pretrain": "lineal.recipes.pretrain",
    "sft": "lineal.recipes.sft",
    "moe": "lineal.recipes.moe",
    "reinforce": "lineal.recipes.reinforce",
    "rloo": "lineal.recipes.rloo",
    "trpo": "lineal.recipes.trpo",
    "ppo": "lineal.recipes.ppo",
    "ppo-kl": "lineal.recipes.ppo_kl",
    "grpo": "lineal.recipes.grpo",
    "dapo": "lineal.recipes.dapo",
    "dr-grpo": "lineal.recipes.dr_grpo",
    "gspo": "lineal.recipes.gspo",
    "cispo": "lineal.recipes.cispo",
    "preferences": "lineal.recipes.preferences",
    "ablation": "lineal.recipes.ablation",
}
"""Every recipe by the name the command knows, and the module that holds it."""
