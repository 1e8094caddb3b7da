// Everything is on the page already: activations read out, and the theme.
(() => {
  for (const strip of document.querySelectorAll(".example")) {
    GS.hover(strip, (event) => {
      const chip = event.target.closest?.(".t");
      if (!chip) return null;
      return [chip.textContent, chip.dataset.v ? `activation ${chip.dataset.v}` : "not active"];
    });
  }
  GS.start();
})();
