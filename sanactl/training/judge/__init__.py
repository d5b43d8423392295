"""Fine-tuning any vision-language model of transformers into a judge (SANA-1.5, section 2.5 and appendix B)."""
