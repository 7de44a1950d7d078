"""Trace what a model of Ultralytics trains."""

from pathlib import Path

from PIL import Image
from ultralytics import YOLO

from gradflow.integrations.ultralytics import GradflowCallback

for folder in ("squares/images", "squares/labels"):
    Path(folder).mkdir(parents=True, exist_ok=True)
for place in range(8):
    Image.new("RGB", (64, 64), (20 * place, 40, 60)).save(f"squares/images/{place}.png")
    Path(f"squares/labels/{place}.txt").write_text("0 0.5 0.5 0.4 0.4")
names = f"path: {Path('squares').resolve()}\ntrain: images\nval: images\nnames: [square]"
Path("squares.yaml").write_text(names)
model = YOLO("yolov8n.yaml")
GradflowCallback("runs/yolo", schedule=2).attach(model)
model.train(data="squares.yaml", epochs=2, imgsz=64, batch=4, nbs=4, workers=0, device="cpu")
