"""How figures look: colours, texts, marks, scales, the canvas, where labels go."""
