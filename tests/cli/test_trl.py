"""What plain TRL wrote is published as it is, by one command, and loads from there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from flowtuner.cli.main import main
from tests.e2e.test_hub_models import run_elsewhere
from tests.fakes.hub.server import Hub

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

REPO = "alice/tiny-sft"
TRAINING = """
import torch
from datasets import Dataset
from peft import LoraConfig
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import SFTConfig, SFTTrainer

words = ["<unk>", "<pad>", "<eos>", "a", "red", "circle"]
tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, "<unk>"))
tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<pad>", eos_token="<eos>")
torch.manual_seed(0)
shape = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
model = LlamaForCausalLM(LlamaConfig(vocab_size=len(words), **shape))
model.save_pretrained("base")
settings = SFTConfig(
    output_dir="sft", max_steps=2, save_steps=1, per_device_train_batch_size=1, report_to=[], use_cpu=True, bf16=False
)
trainer = SFTTrainer(
    model, settings, train_dataset=Dataset.from_dict({"text": ["a red circle"] * 4}), processing_class=fast,
    peft_config=LoraConfig(r=2, target_modules=["q_proj"]),
)
trainer.train()
trainer.save_model()
"""


def test_a_folder_of_plain_trl_is_published_once_and_loads(
    home: Path, hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = subprocess.run([sys.executable, "-c", TRAINING], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert main(["publish", str(tmp_path / "sft"), "--to", f"hf://{REPO}"]) == 0
    files = f"""
from huggingface_hub import HfApi
import json
found = HfApi().list_repo_commits({REPO!r}), HfApi().list_repo_files({REPO!r})
print(json.dumps([len(found[0]), found[1]]))
"""
    commits, names = json.loads(run_elsewhere(files, hub, tmp_path))
    assert {"adapter_model.safetensors", "adapter_config.json", "tokenizer.json", "README.md"} <= set(names)
    assert not [name for name in names if "optimizer" in name or "runs/" in name]
    loading = f"""
from peft import PeftModel
from transformers import LlamaForCausalLM
model = PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained("base"), {REPO!r})
print(sum(float(tensor.abs().sum()) for name, tensor in model.named_parameters() if "lora_" in name) > 0)
"""
    assert run_elsewhere(loading, hub, tmp_path).endswith("True\n")

    assert main(["publish", str(tmp_path / "sft"), "--to", f"hf://{REPO}"]) == 0
    assert json.loads(run_elsewhere(files, hub, tmp_path)) == [commits, names]
