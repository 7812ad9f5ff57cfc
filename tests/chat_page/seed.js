// Leaves behind what an earlier visit of this tab would have.

const citation = { title: "T", heading: "T › H", url: "javascript:alert(1)", score: 1 };
const saved = [
  { role: "user", text: "Earlier question" },
  {
    role: "assistant", text: "Earlier **answer**", state: "done", problem: "",
    sources: { citations: [citation], abstained: true, confidence: 0.1 },
  },
  { role: "user", text: "Cut off" },
  { role: "assistant", text: "", state: "waiting", problem: "", sources: null },
];
sessionStorage.setItem("byheart:/seeded", JSON.stringify(saved));
sessionStorage.setItem("byheart:/damaged", "[{");
