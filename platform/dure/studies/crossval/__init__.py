"""Cross-validation: experiments on folds that no text straddles, compared in pairs."""
