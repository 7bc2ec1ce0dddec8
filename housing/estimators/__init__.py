"""Estimators: their creation from config, checks of their arguments, boosting libraries, and export to ONNX."""
