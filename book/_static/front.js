// The first page's figure: the slider takes ReLUs away, the radio buttons change the data. All numbers come with the page.
{
  const figure = document.querySelector(".front");
  const all = JSON.parse(figure.querySelector(".data").textContent);
  const pictures = [...figure.querySelectorAll("svg")];
  const slider = figure.querySelector("input[type=range]");
  const body = figure.querySelector("tbody");
  let data = all[0];

  const cell = (row, text) => row.insertCell().append(text);

  const show = () => {
    const at = Number(slider.value);
    const budget = `${Number((100 * data.budgets[at]).toFixed(1))} %`;
    const [kept, total] = [data.kept[at], data.kept[0]].map((count) => count.toLocaleString("en"));
    for (const node of figure.querySelectorAll(".kept")) node.textContent = `${budget} (${kept} of ${total})`;
    slider.setAttribute("aria-valuetext", `${budget} of the ReLUs`);
    figure.querySelector(".says").textContent = data.says;
    const rule = pictures[all.indexOf(data)].querySelector(".rule");
    const x = rule.dataset.xs.split(" ")[at];
    rule.setAttribute("d", rule.getAttribute("d").replace(/M\d+/, `M${x}`));
    body.replaceChildren();
    for (const group of data.groups) {
      const row = body.insertRow();
      const head = document.createElement("th");
      const dot = document.createElement("span");
      head.scope = "row";
      dot.className = `dot ${group.role}`;
      dot.ariaHidden = "true";
      head.append(dot, group.name);
      row.append(head);
      cell(row, group.images.toLocaleString("en"));
      cell(row, group.accuracy[at].toFixed(1));
      cell(row, group.control[at].toFixed(1));
    }
  };

  const change = (number) => {
    data = all[number];
    pictures.forEach((picture, i) => picture.toggleAttribute("hidden", i !== number));
    slider.max = data.budgets.length - 1;
    slider.value = slider.max;
    show();
  };

  slider.addEventListener("input", show);
  for (const choice of figure.querySelectorAll("[name=front-data]"))
    choice.addEventListener("change", () => change(Number(choice.value)));
  figure.querySelector(".controls").hidden = false;
  figure.querySelector("[name=front-data]").checked = true;
  change(0);
}
