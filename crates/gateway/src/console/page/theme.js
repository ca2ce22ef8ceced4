// Before anything is shown: the colours that were chosen last.
document.documentElement.dataset.theme = localStorage.getItem("theme") ?? "auto";
