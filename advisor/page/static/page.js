// Says so where the program behind the page has ended; everything else is htmx's, and every number is made by Python.
document.addEventListener("htmx:sendError", () => {
  document.getElementById("said").textContent = "error: nothing answers here any more; start `advise ui` again";
});
