"""The statistics of predictions: measures of performance and their uncertainty (numpy, no torch).

- ``columns``: checks on columns of predictions
- ``estimators``: measures as functions of how often each row counts
- ``concordance``: the C-index
- ``regression``: R², correlations and the mean absolute error of predicted values
- ``brier``: the integrated Brier score
- ``calibration``: the reliability curve and the expected calibration error
- ``recalibration``: calibration slope and intercept of probabilities
- ``survival_calibration``: calibration slope of predicted survival, and observed against expected events
- ``bootstrap``: confidence intervals over cases, paired differences, and differences between two cohorts
- ``within_strata``: AUC over pairs of rows within a stratum
- ``smoothers``: cross-validated predictions that a permutation test can refit quickly
- ``permutation``: permutation tests, and their correction for several tests
- ``shortcuts``: whether what should not matter predicts the truth, or is predicted by a model
- ``thresholds``: decision thresholds, fitted on training or validation cases
- ``risk_groups``: Kaplan–Meier curves and the log-rank test
- ``power``: the difference that a number of test cases can show
- ``faithfulness``: how a prediction changes while patches are removed or added in the order of a heatmap
- ``patch_truth``: how much of each patch a mask of its slide covers
- ``plots/``: figures for papers
"""
