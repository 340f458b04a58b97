// One table in every form.
#include "host/report/table.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "data/error.h"

namespace ccdrec::test {
namespace {

ResultTable table_of_two() {
  ResultTable t{.title = "demo_1, test", .columns = {"run", "R@5", "p %"}};
  t.rows = {{"A & B|c", ccdrec::Cell::number(0.25, 4, 0.0125), ccdrec::Cell::p_value(0.00002)},
            {"say \"no\", x", ccdrec::Cell::number(0.125, 4), ccdrec::Cell()}};
  t.rules = {1};
  t.notes = {"first_note"};
  mark_best(t, 1);
  return t;
}

TEST(Table, Text) {
  EXPECT_EQ(render(table_of_two(), TableFormat::text),
            "demo_1, test; * = best\n"
            "run                       R@5      p %\n"
            "A & B|c      0.2500 ± 0.0125*  2.0e-05\n"
            "--------------------------------------\n"
            "say \"no\", x           0.1250         -\n"
            "first_note\n");
  const std::string colored = render(table_of_two(), TableFormat::text, true);
  EXPECT_TRUE(colored.starts_with("demo_1, test\n")) << colored;
  EXPECT_NE(colored.find("  \x1b[1m0.2500 ± 0.0125\x1b[0m  2.0e-05\n"), std::string::npos) << colored;
  EXPECT_EQ(colored.find('*'), std::string::npos);
}

TEST(Table, Markdown) {
  EXPECT_EQ(render(table_of_two(), TableFormat::markdown),
            "demo_1, test\n\n"
            "| run | R@5 | p % |\n"
            "|---|---:|---:|\n"
            "| A & B\\|c | **0.2500 ± 0.0125** | 2.0e-05 |\n"
            "| say \"no\", x | 0.1250 | - |\n"
            "\nfirst_note\n");
}

TEST(Table, Latex) {
  EXPECT_EQ(render(table_of_two(), TableFormat::latex),
            "% \\usepackage{booktabs}\n"
            "\\begin{table}\n\\centering\n\\caption{demo\\_1, test}\n\\begin{tabular}{lrr}\n\\toprule\n"
            "run & R@5 & p \\% \\\\\n\\midrule\n"
            "A \\& B|c & \\textbf{0.2500 $\\pm$ 0.0125} & 2.0e-05 \\\\\n\\midrule\n"
            "say \"no\", x & 0.1250 & - \\\\\n\\bottomrule\n\\end{tabular}\n"
            "\n{\\footnotesize first\\_note}\n\\end{table}\n");
  ResultTable odd{.columns = {"a"}, .rows = {{"\\^~#{$}<"}, {ccdrec::Cell::number(-0.5, 1)}, {"-x"}}};
  const std::string text = render(odd, TableFormat::latex);
  EXPECT_NE(text.find("\n\\textbackslash{}\\textasciicircum{}\\textasciitilde{}\\#\\{\\$\\}$<$ \\\\\n$-$0.5 \\\\\n-x "),
            std::string::npos)
      << text;
}

TEST(Table, Csv) {
  EXPECT_EQ(render(table_of_two(), TableFormat::csv),
            "run,R@5,R@5 sd,p %\n"
            "A & B|c,0.25,0.0125,2e-05\n"
            "\"say \"\"no\"\", x\",0.125,,\n");
  const double third = 1 / 3.0;
  const std::string text = render({.columns = {"a\nb"}, .rows = {{ccdrec::Cell::number(third, 2)}}}, TableFormat::csv);
  EXPECT_TRUE(text.starts_with("\"a\nb\"\n")) << text;
  EXPECT_EQ(std::stod(text.substr(6)), third) << "every digit";
}

TEST(Table, Json) {
  const nlohmann::json j = nlohmann::json::parse(render(table_of_two(), TableFormat::json));
  EXPECT_EQ(j, nlohmann::json::parse(R"({"title": "demo_1, test", "columns": ["run", "R@5", "p %"], "rows": [
      {"run": "A & B|c", "R@5": {"value": 0.25, "deviation": 0.0125}, "p %": {"value": 2e-05}},
      {"run": "say \"no\", x", "R@5": {"value": 0.125}, "p %": null}], "notes": ["first_note"]})"));
}

TEST(Table, NumbersAreShownAsTheyAreMeant) {
  EXPECT_EQ(ccdrec::Cell::number(-0.00001, 4).text, "0.0000") << "no -0.0000";
  EXPECT_EQ(ccdrec::Cell::number(-0.0125, 3).text, "-0.013");
  EXPECT_EQ(ccdrec::Cell::number(NAN, 4).text, "-");
  EXPECT_EQ(ccdrec::Cell::p_value(0.04321).text, "0.0432");
  EXPECT_EQ(ccdrec::Cell::p_value(0).text, "<1e-99");
  EXPECT_EQ(ccdrec::Cell::p_value(NAN).text, "-");
}

TEST(Table, TheBestIsMarkedAmongSeveral) {
  ResultTable t{.columns = {"run", "x", "y"}};
  t.rows = {{"a", ccdrec::Cell::number(1, 0), ccdrec::Cell()}};
  mark_best(t, 1);
  EXPECT_FALSE(t.rows[0][1].best) << "one row is no choice";
  t.rows.push_back({"b", ccdrec::Cell::number(2, 0), ccdrec::Cell()});
  t.rows.push_back({"c", ccdrec::Cell::number(2, 0), ccdrec::Cell()});
  mark_best(t, 1), mark_best(t, 2);
  EXPECT_TRUE(!t.rows[0][1].best && t.rows[1][1].best && t.rows[2][1].best) << "both that are as high";
  for (const auto& row : t.rows) EXPECT_FALSE(row[2].best);
}

// Text of files and settings reaches a terminal without what it would obey.
TEST(Table, ControlCharactersAreNotShown) {
  const ResultTable t{.title = "\x1b[2J", .columns = {"a"}, .rows = {{"x\ny"}}};
  for (const TableFormat f : {TableFormat::text, TableFormat::markdown, TableFormat::latex}) {
    const std::string text = render(t, f);
    EXPECT_EQ(text.find('\x1b'), std::string::npos) << text;
    EXPECT_EQ(text.find("x\ny"), std::string::npos) << text;
  }
}

TEST(Table, FormatsHaveNames) {
  for (const std::string& name : table_formats()) EXPECT_NO_THROW(table_format(name)) << name;
  EXPECT_EQ(table_format("latex"), TableFormat::latex);
  EXPECT_THROW(table_format("html"), UserError);
}

}  // namespace
}  // namespace ccdrec::test
